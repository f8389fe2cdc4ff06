"""Blocks are computed in processes of their own and become records."""
