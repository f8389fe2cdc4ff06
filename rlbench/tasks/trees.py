"""Trees of media, class names and prompt templates: what published data sets and folders of pictures share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from rlbench.core import Label
from rlbench.core.errors import DataError
from rlbench.tasks.lists import read_lines, read_table

V = TypeVar("V")
_TEXTS = (".csv", ".tsv", ".txt", ".json", ".md", ".pkl", ".xml", ".yaml", ".html")  # no media, so not missed
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
    return tuple(Label(row["label"], row["name"]) for row in read_table(NAMES / f"{data_set}.csv", ("label", "name")))


@cache
def templates(name: str, photo: str = "photo") -> tuple[str, ...]:
    """Prompt templates that come with rlbench, with another word for "photo"."""
    return tuple(line.replace("photo", photo) for line in read_lines(NAMES / f"{name}.txt"))


def below(root: Path, folder: Path, suffixes: Collection[str], left: Counter[str] | None = None) -> Iterator[str]:
    """Paths relative to root of a folder's files with these suffixes, in subfolders too; hidden ones are left out.

    Links are followed, but to no folder that `folder` lies in, and every folder is read once.

    Args:
        root, folder: the files' paths are relative to one and lie in the other.
        suffixes: in lower case; files may have them in any case.
        left: counts the suffixes of the files that are left out.

    Raises:
        DataError: a folder can't be read.
    """
    try:
        seen = {
            (about.st_dev, about.st_ino)
            for about in map(os.stat, (*folder.absolute().parents, *folder.resolve().parents))
        }
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error
    return _below(root, folder, tuple(suffixes), Counter() if left is None else left, seen)


def _below(
    root: Path, folder: Path, suffixes: tuple[str, ...], left: Counter[str], seen: set[tuple[int, int]]
) -> Iterator[str]:
    try:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in seen:
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted((one for one in listing if not _is_hidden(one.name)), key=lambda one: one.name)
            folders = {one.name for one in entries if one.is_dir(follow_symlinks=False)}
            links = {one.name for one in entries if one.is_symlink() and os.path.isdir(one.path)}
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error
    for name in (one.name for one in entries if one.name not in folders and one.name not in links):
        if name.lower().endswith(suffixes):
            if not name.isprintable():
                raise DataError(f"{folder} has a file {name!a}; name it without control characters, in UTF-8")
            yield (folder / name).relative_to(root).as_posix()
        elif not name.lower().endswith(_TEXTS):
            left[Path(name).suffix.lower() or name] += 1
    # Links last, so that what they lead to has its own name where it lies in the same tree.
    for name in (*sorted(folders), *sorted(links)):
        yield from _below(root, folder / name, suffixes, left, seen)


def _is_hidden(name: str) -> bool:
    """Whether a system or program keeps something of its own there."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def describe_left_out(left: Mapping[str, int]) -> list[str]:
    """A note on the files that are left out: "7 files are left out: 5 .heic, 2 .gif"; none without such files."""
    total, most = sum(left.values()), sorted(left.items(), key=lambda pair: (-pair[1], pair[0]))
    named = ", ".join(f"{count:,} {suffix}" for suffix, count in most[:5]) + ", ..." * (len(most) > 5)
    return [f"{total:,} file{'s are' if total > 1 else ' is'} left out: {named}"] if total else []


def by_stem(root: Path, folder: Path, suffixes: Collection[str], left: Counter[str] | None = None) -> dict[str, str]:
    """The files of a folder, at any depth, by their names without suffix. Raises: DataError for one that is twice."""
    found: dict[str, str] = {}
    for path in below(root, folder, suffixes, left):
        other = found.setdefault(Path(path).stem, path)
        if other != path:
            raise DataError(f"{root} has {Path(path).stem} twice: {other} and {path}; move one away")
    return found


def once(rows: Iterable[tuple[str, V]], path: Path) -> dict[str, V]:
    """Values by name. Raises: DataError for a name that stands twice in the list `path`."""
    found: dict[str, V] = {}
    for name, value in rows:
        if name in found:
            raise DataError(f"{path}: {name!r} stands twice")
        found[name] = value
    return found


def fold_name(name: str) -> str:
    """A folder's name as data sets' copies differ in it: lower case, words apart by single spaces."""
    return " ".join(name.lower().replace("_", " ").split())


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, links to folders too, by name. Raises: DataError."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error


def class_tree(
    root: Path, folder: Path, classes: Sequence[Label], suffixes: Collection[str], left: Counter[str] | None = None
) -> list[Item]:
    """The files of `folder/<class>/`; ids are "<class>/<name>". Raises: DataError for a folder that is no class."""
    known = {fold_name(one.label): one.label for one in classes}
    items = []
    for place in class_folders(folder):
        label = known.get(fold_name(place.name))
        if label is None:
            raise DataError(f"{place} is none of the {len(known)} classes, such as {classes[0].label!r}; move it away")
        paths = below(root, place, suffixes, left)
        items += [Item(f"{label}/{Path(path).name}", path, label, f"{label}/{Path(path).stem}") for path in paths]
    return items


def first_folder(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first of some folders below root that is there; "." is the root itself."""
    return next((root / name for name in candidates if (root / name).is_dir()), None)


def make_labels(classes: Sequence[str] | Mapping[str, str]) -> tuple[Label, ...]:
    """Classes from names by label, or from names that are labels."""
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, name) for name in classes)
    return tuple(Label(label, name) for label, name in pairs)
