"""Attacks: one file each, found by their @register decorator."""
