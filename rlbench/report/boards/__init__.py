"""Leaderboards: records to tables in markdown, LaTeX, CSV and JSON."""
