"""The HTML page of a board."""
