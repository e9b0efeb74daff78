"""Kills parts of a private installation in the middle of a campaign and of a bulk replay, and judges what came of them."""
