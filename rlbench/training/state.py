"""The state that a killed run resumes from: one file per group of modalities, written atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlbench.core.errors import CheckpointError, RLBenchError, first_line
from rlbench.core.files import FULL, placing


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into an RLBenchError with one line."""
    try:
        yield
    except OSError as error:
        hint = "free some space and run it again" if error.errno in FULL else "name another folder"
        raise RLBenchError(f"{path} can't be written: {error.strerror or error}; {hint} with --out") from error


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces the file atomically: a kill leaves the old one or the new one. Raises: RLBenchError."""
    with writing(path), placing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def read_state(path: Path) -> dict[str, Any] | None:
    """Reads the state of an unfinished run to the CPU; None if there is none yet.

    Raises:
        CheckpointError: The file can't be read.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything on damaged bytes
        raise CheckpointError(f"{path} can't be read: {first_line(error)}; remove its folder to start over") from error
    return state
