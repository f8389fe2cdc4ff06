"""Attacks on the text side: edits of class names, and how an attacker chooses among texts."""
