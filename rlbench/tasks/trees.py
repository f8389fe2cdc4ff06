"""Lists and trees of published data sets: class names, prompt templates, media below a folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlbench.core import Label
from rlbench.errors import DataError
from rlbench.tasks.folder import table

NAMES = Path(__file__).parent / "names"


@dataclass(frozen=True, slots=True)
class Item:
    """An example on disk.

    Attributes:
        id: its name in records, the same in every layout of the data set.
        path: of its file, relative to the root.
        label: of its class.
        source: the recording, group or picture that it shares with others.
        part: of the file: left, top, right, bottom in pixels, or an index; nothing for the whole.
    """

    id: str
    path: str
    label: str
    source: str
    part: tuple[float, ...] = ()


@cache
def names(data_set: str) -> tuple[Label, ...]:
    """The classes of a data set whose names come with rlbench, in the order of its labels."""
    rows = table(NAMES / f"{data_set}.csv", ("label", "name"))
    return tuple(Label(row["label"], row["name"]) for _, row in rows)


@cache
def templates(name: str, photo: str = "photo") -> tuple[str, ...]:
    """Prompt templates that come with rlbench, with another word for "photo"."""
    return tuple(line.replace("photo", photo) for line in lines(NAMES / f"{name}.txt"))


def lines(path: Path) -> list[str]:
    """The lines of a list that are not empty. Raises: DataError."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error


def columns(path: Path, wanted: Sequence[str], delimiter: str = ",") -> Iterator[list[str]]:
    """The values of some columns of a CSV file, by the names in its first line. Raises: DataError."""
    rows = plain(path, delimiter)
    head = next(rows, [])
    missing = [name for name in wanted if name not in head]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; it needs {', '.join(wanted)}")
    places = [head.index(name) for name in wanted]
    for row in rows:
        if len(row) != len(head):
            raise DataError(f"{path}: {delimiter.join(row)!r} has {len(row)} values; its first line has {len(head)}")
        yield [row[place].strip() for place in places]


def plain(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of a CSV file, its first line too. Raises: DataError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (row for row in csv.reader(file, delimiter=delimiter) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error


def below(root: Path, folder: Path, suffixes: Collection[str]) -> Iterator[str]:
    """Paths relative to root of a folder's files with these suffixes, in subfolders too; hidden ones are left out."""
    for place, folders, found in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(found):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith("."):
                yield (Path(place) / name).relative_to(root).as_posix()


def by_stem(root: Path, folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """The files of a folder, at any depth, by their names without suffix."""
    return {Path(path).stem: path for path in below(root, folder, suffixes)}


def folded(name: str) -> str:
    """A folder's name as data sets' copies differ in it: lower case, words apart by single spaces."""
    return " ".join(name.lower().replace("_", " ").split())


def class_tree(root: Path, folder: Path, classes: Sequence[Label], suffixes: Collection[str]) -> list[Item]:
    """The files of `folder/<class>/`; ids are "<class>/<name>". Raises: DataError for a folder that is no class."""
    known = {folded(one.label): one.label for one in classes}
    items = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = known.get(folded(place.name))
        if label is None:
            raise DataError(f"{place} is none of the {len(known)} classes, such as {classes[0].label!r}; move it away")
        paths = below(root, place, suffixes)
        items += [Item(f"{label}/{Path(path).name}", path, label, f"{label}/{Path(path).stem}") for path in paths]
    return items


def first_folder(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first of some folders below root that is there; "." is the root itself."""
    return next((root / name for name in candidates if (root / name).is_dir()), None)


def labelled(classes: Sequence[str] | Mapping[str, str]) -> tuple[Label, ...]:
    """Classes from names by label, or from names that are labels."""
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, name) for name in classes)
    return tuple(Label(label, name) for label, name in pairs)
