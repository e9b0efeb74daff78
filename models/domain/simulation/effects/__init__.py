"""What each kind of step does to the world, in memory: one file per kind, beside `activities/effects`. Pure."""
