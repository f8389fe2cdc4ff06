"""Curves, heat maps, scatter plots and sheets of perturbed examples."""
