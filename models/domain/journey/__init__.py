"""The journey language: what a designer writes, and how a run moves through it. Pure."""
