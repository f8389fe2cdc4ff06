"""The files that a folder's labels.csv names: their splits, and that each stands in it under one name."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlbench.core import Split
from rlbench.tasks.lists import Line

_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(line: Line) -> Split:
    """The split of a row: train, val or test, or what certainly means it. Raises: DataError."""
    split = _SPLITS.get(line["split"].casefold())
    if split is None:
        raise line.error(f"the split is {line['split']!r}; it must be train, val or test")
    return split


def check_splits(lines: Iterable[Line]) -> None:
    """Raises: DataError where one split has two names, since they may be two splits."""
    names: dict[Split, str] = {}
    for line in lines:
        name, split = line["split"].casefold(), split_of(line)
        if names.setdefault(split, name) != name:
            raise line.error(f"the splits are {names[split]!r} and {name!r}, which both mean {split}; give it one name")


def check_paths(root: Path, lines: Mapping[str, Line]) -> None:
    """Checks the paths of a list, each with the row where it stands first.

    Two spellings of one file ("a.png" and "./a.png", or other cases on a disk that does not tell them apart) would
    count it twice. Two links to one file are two files, as some stores keep files of the same bytes.

    Raises:
        DataError: a path is absolute, or two are of one file.
    """
    spelled: dict[str, str] = {}
    places: dict[tuple[int, int], str] = {}
    for path, line in lines.items():
        if os.path.isabs(path):
            raise line.error(f"{path!r} is absolute; paths must be relative to {root}")
        other = spelled.setdefault(posixpath.normpath(path), path)
        place = _place(root / path)
        if other == path and place is not None:
            other = places.setdefault(place, path)
        if other != path:
            raise line.error(f"{path!r} is the same file as {other!r} in line {lines[other].number}")


def _place(path: Path) -> tuple[int, int] | None:
    """Where a file with a single name lies on disk; None for a link, for one with several names, and for none."""
    try:
        about = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (about.st_dev, about.st_ino) if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 else None


def is_file(path: Path) -> bool:
    """Whether there is such a file, or a link to one; False also for names that no file can have."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
