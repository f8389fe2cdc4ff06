"""The command `rlbench`: parse, call, print; one file per group of commands."""

from rlbench.cli.main import main

__all__ = ["main"]
