"""Encoders: one file per family, found by their @register decorator."""
