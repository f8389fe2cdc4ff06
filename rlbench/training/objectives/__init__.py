"""Training objectives: what a method lowers, and what its adversary raises; one file per method."""
