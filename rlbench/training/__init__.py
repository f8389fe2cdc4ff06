"""Training: objectives, one loop, recipes."""
