"""`leadstats demo`: an organization of invented people, and the proof that each of them got what they agreed to."""
