"""The command line `rlbench`: one file per group of commands."""

from rlbench.cli.main import main

__all__ = ["main"]
