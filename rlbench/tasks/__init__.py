"""Tasks: one file per data source, found by their @register decorator."""
