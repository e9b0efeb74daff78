"""A journey under a virtual clock: the same interpreter, rules and policies, in memory; nothing is sent and nothing is written. Pure."""
