"""Checks the splits and paths in labels.csv: one name per split, and one row per file."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlbench.core import Split
from rlbench.tasks.lists import Line
from rlbench.tasks.trees import explain_spelling

_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def parse_split(line: Line) -> Split:
    """Reads the split of a row: train, val, test, or a common synonym. Raises: DataError."""
    split = _SPLITS.get(line["split"].casefold())
    if split is None:
        raise line.error(f"the split is {line['split']!r}; it must be train, val or test")
    return split


def check_splits(lines: Iterable[Line]) -> None:
    """Raises: DataError if one split has two names, which may stand for two splits."""
    names: dict[Split, str] = {}
    for line in lines:
        name, split = line["split"].casefold(), parse_split(line)
        if names.setdefault(split, name) != name:
            raise line.error(f"the splits are {names[split]!r} and {name!r}, which both mean {split}; give it one name")


def check_paths(root: Path, lines: Mapping[str, Line]) -> None:
    """Checks the paths of a list.

    Two spellings of one path ("a.png" and "./a.png", or "A.png" where case does not matter) would count a file twice.
    Two links to one file count as two files, since stores by content keep equal files as links.

    Args:
        root: folder that the paths are relative to.
        lines: first row of each path.

    Raises:
        DataError: a path is absolute, or two paths are the same file.
    """
    spelled: dict[str, str] = {}
    places: dict[tuple[int, int], str] = {}
    for path, line in lines.items():
        if os.path.isabs(path):
            raise line.error(f"{path!r} is absolute; paths must be relative to {root}")
        other = spelled.setdefault(posixpath.normpath(path), path)
        place = _identify(root / path)
        if other == path and place is not None:
            other = places.setdefault(place, path)
        if other != path:
            raise line.error(f"{path!r} is the same file as {other!r} in line {lines[other].number}")


def _identify(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file; None for a link, a file with several hard links, or no file."""
    try:
        about = os.lstat(path)
    except (OSError, ValueError):
        return None
    return (about.st_dev, about.st_ino) if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 else None


def explain_missing(root: Path, path: str) -> str:
    """What may be wrong with the path of a list that names no file, or "" if nothing tells."""
    if "\\" in path and is_file(root / path.replace("\\", "/")):
        return "; write / in paths, not \\"
    folder = (root / path).parent
    return explain_spelling(Path(path).name, [one.name for one in folder.iterdir()] if folder.is_dir() else [])


def is_file(path: Path) -> bool:
    """Whether a path is a file or a link to one; False for an invalid path."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
