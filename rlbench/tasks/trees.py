"""Lists trees of media, and reads bundled class names and prompt templates, for data sets and image folders."""

from __future__ import annotations

import os
import unicodedata
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
_TEXTS = (
    ".csv",
    ".tsv",
    ".txt",
    ".json",
    ".md",
    ".pkl",
    ".xml",
    ".yaml",
    ".html",
)  # not media: not counted as left out
NAMES = Path(__file__).parent / "names"


@dataclass(frozen=True, slots=True)
class Item:
    """An example on disk.

    Attributes:
        id: name in records, the same in every layout of the data set.
        path: the path of the file, relative to the root.
        label: the label of the class.
        source: the recording, group or picture that it shares with others.
        part: the part of the file: left, top, right, bottom in pixels, or an index; empty for the whole file.
    """

    id: str
    path: str
    label: str
    source: str
    part: tuple[float, ...] = ()


@cache
def load_names(data_set: str) -> tuple[Label, ...]:
    """Loads the bundled class names of a data set, in the order of its labels."""
    return tuple(Label(row["label"], row["name"]) for row in read_table(NAMES / f"{data_set}.csv", ("label", "name")))


@cache
def load_templates(name: str, photo: str = "photo") -> tuple[str, ...]:
    """Loads bundled prompt templates, with `photo` in place of the word "photo"."""
    return tuple(line.replace("photo", photo) for line in read_lines(NAMES / f"{name}.txt"))


def list_files(
    root: Path, folder: Path, suffixes: Collection[str], left_out: Counter[str] | None = None
) -> Iterator[str]:
    """Lists a folder's files with certain suffixes, at any depth; hidden files are skipped.

    Links are followed, except to a parent of `folder`, and every folder is read once.

    Args:
        root: folder that the paths are relative to.
        folder: folder to list, below root.
        suffixes: the suffixes in lower case; files may have them in any case.
        left_out: counts the files that are left out, by suffix.

    Raises:
        DataError: a folder can't be read.
    """
    try:
        visited = {
            (about.st_dev, about.st_ino)
            for about in map(os.stat, (*folder.absolute().parents, *folder.resolve().parents))
        }
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error
    return _list_files(root, folder, tuple(suffixes), Counter() if left_out is None else left_out, visited)


def _list_files(
    root: Path, folder: Path, suffixes: tuple[str, ...], left_out: Counter[str], visited: set[tuple[int, int]]
) -> Iterator[str]:
    try:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in visited:
            return
        visited.add((about.st_dev, about.st_ino))
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
            left_out[Path(name).suffix.lower() or name] += 1
    # Links last, so that a target in the same tree is listed under its own name.
    for name in (*sorted(folders), *sorted(links)):
        yield from _list_files(root, folder / name, suffixes, left_out, visited)


def _is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to an operating system or program."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def describe_left_out(left_out: Mapping[str, int]) -> list[str]:
    """Describes left-out files in one note, "7 files are left out: 5 .heic, 2 .gif", or none if there are none."""
    total, most = sum(left_out.values()), sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    named = ", ".join(f"{count:,} {suffix}" for suffix, count in most[:5]) + ", ..." * (len(most) > 5)
    return [f"{total:,} file{'s are' if total > 1 else ' is'} left out: {named}"] if total else []


def index_by_stem(
    root: Path, folder: Path, suffixes: Collection[str], left_out: Counter[str] | None = None
) -> dict[str, str]:
    """Maps the stems of a folder's files, at any depth, to paths. Raises: DataError for a duplicate stem."""
    found: dict[str, str] = {}
    for path in list_files(root, folder, suffixes, left_out):
        other = found.setdefault(Path(path).stem, path)
        if other != path:
            raise DataError(f"{root} has {Path(path).stem} twice: {other} and {path}; remove one")
    return found


def collect_unique(rows: Iterable[tuple[str, V]], path: Path) -> dict[str, V]:
    """Makes a dict of the rows of the list `path`. Raises: DataError for a duplicate name."""
    found: dict[str, V] = {}
    for name, value in rows:
        if name in found:
            raise DataError(f"{path}: {name!r} appears twice")
        found[name] = value
    return found


def fold_name(name: str) -> str:
    """Normalises a class name, whose spelling differs between copies: lower case, words separated by one space."""
    return " ".join(name.lower().replace("_", " ").split())


def list_class_folders(folder: Path) -> list[Path]:
    """Lists the visible folders in a folder, including links, sorted by name. Raises: DataError."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error


def count_loose_files(folder: Path, left_out: Counter[str]) -> None:
    """Counts the visible media beside the folders of classes, which belong to no class. Raises: DataError."""
    try:
        names = [path.name for path in folder.iterdir() if not path.is_dir() and not _is_hidden(path.name)]
    except OSError as error:
        raise DataError(f"can't read the folder {folder}: {error.strerror}") from error
    left_out.update(Path(name).suffix.lower() or name for name in names if not name.lower().endswith(_TEXTS))


def explain_spelling(name: str, others: Iterable[str]) -> str:
    """A hint if a name looks like another one, but is in another form of Unicode, as after a copy from macOS."""
    same = unicodedata.normalize("NFC", name)
    alike = any(other != name and unicodedata.normalize("NFC", other) == same for other in others)
    return " (it has the same letters in another form of Unicode: rename it)" if alike else ""


def list_class_tree(
    root: Path, folder: Path, classes: Sequence[Label], suffixes: Collection[str], left_out: Counter[str] | None = None
) -> list[Item]:
    """Lists the files of `folder/<class>/`; ids are "<class>/<name>". Raises: DataError for an unknown class."""
    known = {fold_name(one.label): one.label for one in classes}
    items = []
    for place in list_class_folders(folder):
        label = known.get(fold_name(place.name))
        if label is None:
            raise DataError(f"{place} is none of the {len(known)} classes, such as {classes[0].label!r}; remove it")
        paths = list_files(root, place, suffixes, left_out)
        items += [Item(f"{label}/{Path(path).name}", path, label, f"{label}/{Path(path).stem}") for path in paths]
    return items


def make_classes(classes: Sequence[str] | Mapping[str, str]) -> tuple[Label, ...]:
    """Makes classes of names by label, or of names that are also the labels."""
    pairs = classes.items() if isinstance(classes, Mapping) else ((name, name) for name in classes)
    return tuple(Label(label, name) for label, name in pairs)
