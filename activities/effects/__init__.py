"""One file per kind of step that does something to the world, and the registry that finds it."""
