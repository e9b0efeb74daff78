"""Private installations with campaigns in them, for chaos and benches."""
