"""Training: objectives, one loop for all of them, recipes, campaigns."""
