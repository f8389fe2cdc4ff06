"""Published pickles of plain values: nothing in them is called or imported but what a list allows."""

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


class _Plain(pickle.Unpickler):
    allowed: Set[tuple[str, str]] = frozenset()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which this file has no need of")
        return super().find_class(module, name)


def unpickle(path: Path, allowed: Set[tuple[str, str]] = frozenset()) -> Any:
    """The value in a pickle of containers, numbers and text, of Python 2 too. Raises: DataError."""
    with guard(f"can't read {path}"), path.open("rb") as file:
        reader = _Plain(file, encoding="latin1")
        reader.allowed = allowed
        return reader.load()
