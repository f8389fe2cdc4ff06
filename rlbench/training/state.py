"""What a run that was killed goes on from: one file a modality, written as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlbench.errors import CheckpointError


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces the file at once, so that a kill leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def read_state(path: Path) -> dict[str, Any] | None:
    """The state of an unfinished run, on the CPU, or None if there is none yet.

    Raises:
        CheckpointError: it can't be read.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what the file's bytes make it raise
        raise CheckpointError(f"{path} can't be read: {error}; remove its folder to start over") from error
    return state
