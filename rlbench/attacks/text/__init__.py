"""Attacks on the text side: edits of class names, and the classifier that an attacker of both sides faces."""
