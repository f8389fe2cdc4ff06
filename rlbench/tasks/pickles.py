"""Reads published pickles of plain values, and calls or imports nothing that is not allowed."""

from __future__ import annotations

import pickle
from collections.abc import Set
from pathlib import Path
from typing import Any

from rlbench.core.guard import guard

# How numpy of any version pickles an array.
ARRAYS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype")}
    | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
)


class _PlainUnpickler(pickle.Unpickler):
    allowed: Set[tuple[str, str]] = frozenset()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which this file does not need")
        return super().find_class(module, name)


def unpickle(path: Path, allowed: Set[tuple[str, str]] = frozenset()) -> Any:
    """Reads a pickle of containers, numbers and text, written by Python 2 or 3.

    Args:
        path: the file.
        allowed: modules and names that the pickle may import.

    Raises:
        DataError: the file can't be read or asks for another name.
    """
    with guard(f"can't read {path}"), path.open("rb") as file:
        reader = _PlainUnpickler(file, encoding="latin1")
        reader.allowed = allowed
        return reader.load()
