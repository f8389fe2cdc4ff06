"""Training objectives: a method's loss, and the loss of its adversary; one file per method."""
