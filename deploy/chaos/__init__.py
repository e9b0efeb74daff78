"""Kills parts of a private installation in the middle of a campaign and judges what came of it."""
