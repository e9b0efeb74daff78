"""One file per kind of step: what a designer writes, what is wrong with it, and what it does to a run. Pure."""
