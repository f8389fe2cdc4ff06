"""A folder of files: labels.csv, classes.csv, prompts.txt and images, recordings or clips."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np
import torch

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media.readers import VERSIONS, read
from rlbench.core.media.stills import picture, planes
from rlbench.core.registry import register
from rlbench.tasks.hashes import digests
from rlbench.tasks.listing import check_paths, check_splits, is_file, split_of
from rlbench.tasks.lists import Line, read_lines, read_table, without_fraction
from rlbench.tasks.recordings import Recordings
from rlbench.tasks.trees import describe_left_out


@dataclass(frozen=True, slots=True)
class Row:
    """A line of labels.csv: a file, its label, its split, and the recording or date that it comes from."""

    path: str
    label: str
    split: str
    source: str


def _rows(root: Path, where: Mapping[str, str]) -> list[Row]:
    """The lines of labels.csv whose columns have the values of `where`. All lines are checked."""
    path, lines = root / "labels.csv", dict[str, Line]()
    for line in read_table(path, ("path", "label", "split", "source", *where)):
        if line["path"] in lines:
            raise line.error(f"{line['path']!r} stands twice")
        lines[line["path"]] = line
    check_splits(lines.values())
    check_paths(root, lines)
    rows = [
        Row(line["path"], line["label"], split_of(line), line["source"])
        for line in lines.values()
        if all(without_fraction(line[column]) == without_fraction(value) for column, value in where.items())
    ]
    missing = [row.path for row in rows if not is_file(root / row.path)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{path} names files that are missing from {root}: {', '.join(path[:80] for path in missing[:3])}{more}"
        )
    return rows


def classes_of(root: Path, given: str | Mapping[str, str] | Sequence[str] | None) -> tuple[Label, ...]:
    """The classes that are given, or the lines of a CSV file, without a name classes.csv. Raises: DataError."""
    if given is None or isinstance(given, str):
        pairs = [
            (line["label"], line["name"]) for line in read_table(root / (given or "classes.csv"), ("label", "name"))
        ]
    elif isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        pairs = [(label, label.replace("_", " ")) for label in given]
    labels = [label for label, _ in pairs]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise DataError(f"classes are {', '.join(labels) or 'none'}; there must be two or more, each once")
    return tuple(Label(label, name) for label, name in pairs)


def templates_of(root: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """The prompt templates that are given, or the lines of prompts.txt. Raises: DataError."""
    try:
        lines = read_lines(root / "prompts.txt") if given is None else given
    except DataError as error:
        raise DataError(f"{error}; or give templates in the suite") from error
    found = tuple(line.strip() for line in lines if line.strip())
    for template in found or ("",):
        if "{}" not in template and "{a}" not in template:
            raise DataError(f"templates: {template!r} must hold {{}} for the class name, or {{a}} with its article")
    return found


class Example(Protocol):
    """What `mixed` orders."""

    @property
    def label(self) -> str: ...

    @property
    def path(self) -> str: ...


E = TypeVar("E", bound=Example)


def _path(one: Example) -> str:
    return one.path


def interleave(rows: Sequence[E], classes: Sequence[Label], key: Callable[[E], str] = _path) -> tuple[E, ...]:
    """A fixed order in which every prefix is as balanced as the classes allow: in turns, each class by hash of key."""
    of: dict[str, list[E]] = {one.label: [] for one in classes}
    for row in sorted(rows, key=lambda row: hashlib.blake2b(key(row).encode()).digest()):
        of[row.label].append(row)
    turns = zip_longest(*of.values())
    return tuple(row for row in chain.from_iterable(turns) if row is not None)


def describe_untested(classes: Sequence[Label], tested: Sequence[Example]) -> list[str]:
    """A note on classes of which no example is tested; none where every class has one."""
    used = {one.label for one in tested}
    without = [one.label for one in classes if one.label not in used]
    named = f"{', '.join(without[:3])}{', ...' * (len(without) > 3)}"
    return [f"{len(without):,} of {len(classes):,} classes have no test example: {named}"] if without else []


def _splits(root: Path, rows: Sequence[Row], classes: Sequence[Label]) -> dict[str, tuple[Row, ...]]:
    """The rows by split; every label has its class, and there is something to test."""
    known, path = {one.label for one in classes}, root / "labels.csv"
    rows = [row if row.label in known else replace(row, label=without_fraction(row.label)) for row in rows]
    orphan = next((row for row in rows if row.label not in known), None)
    if orphan is not None:
        raise DataError(f"classes has no {orphan.label!r}, the label of {orphan.path} in {path}; add it to classes")
    splits = {split: interleave([row for row in rows if row.split == split], classes) for split in get_args(Split)}
    if not splits["test"]:
        raise DataError(f"data has nothing to test: no line of {path} has the split 'test'")
    return splits


@dataclass(frozen=True, kw_only=True)
class Folder(Recordings):
    """The task of a folder whose lists have been checked; `rows` by split, in their fixed order."""

    root: Path
    modality: Modality
    classes: tuple[Label, ...]
    templates: tuple[str, ...]
    rows: Mapping[str, tuple[Row, ...]]
    rate: int
    seconds: float
    left: tuple[tuple[str, int], ...] = ()  # suffixes of the files that are left out, and how many

    def size(self, split: Split) -> int | None:
        return len(self.rows[split])

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Rows start..stop-1 of the split, or as many as there are. Ids are paths.

        Raises: DataError, naming the file that can't be read.
        """
        rows = self.rows[split][start:stop]
        index = {one.label: k for k, one in enumerate(self.classes)}
        arrays = [read(self.root / row.path, self.modality, box, rate=self.rate, seconds=self.seconds) for row in rows]
        unit = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, *box.shape)
        return Examples(
            box.low + (box.high - box.low) * unit,
            torch.tensor([index[row.label] for row in rows], dtype=torch.int64),
            tuple(row.path for row in rows),
            tuple(row.source for row in rows),
        )

    def paths(self, start: int, stop: int, split: Split) -> list[Path]:
        """The files of rows start..stop-1."""
        return [self.root / row.path for row in self.rows[split][start:stop]]

    def picture(self, i: int, channels: int, split: Split = "train") -> tuple[np.ndarray, int]:
        """A whole picture, (C, H, W) uint8 in its own size, and its class; of images alone.

        Raises: DataError, naming the file that can't be read.
        """
        row = self.rows[split][i]
        label = next(k for k, one in enumerate(self.classes) if one.label == row.label)
        return planes(picture(self.root / row.path, channels)), label

    def fingerprint(self) -> str:
        """A hash of the lists and of every file's bytes, of all splits."""
        labels = [one.label for one in self.classes]
        version = VERSIONS.get(self.modality, 1)
        digest = hashlib.sha256(f"folder {version} {self.modality} {self.rate} {self.seconds} {labels}".encode())
        self._add_files(digest)
        return digest.hexdigest()[:16]

    def _add_files(self, digest: hashlib._Hash) -> None:
        rows = list(chain.from_iterable(self.rows.values()))
        hashes = digests(self.root / row.path for row in rows)
        for row in rows:
            digest.update(f"{row} ".encode() + hashes[self.root / row.path])

    def notes(self) -> tuple[str, ...]:
        """What is not as one may expect, and no mistake: files that are left out, classes of which none is tested."""
        return (*describe_left_out(dict(self.left)), *describe_untested(self.classes, self.rows["test"]))


@register("task", "folder")
def folder(
    *,
    data: str,
    modality: Literal["image", "thermal", "audio", "video"],
    classes: Mapping[str, str] | tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    where: Mapping[str, str] | None = None,
    rate: int = 8000,
    seconds: float = 1.0,
) -> Folder:
    """A folder of images, thermal images, recordings or clips with labels.csv.

    Everything but the media themselves is checked here: the lists, and that the files exist and the split is not empty.

    Args:
        data: the folder. labels.csv has path,label,split,source; paths are relative to the folder and may leave it
            for a neighbour's files. Splits are train, val and test.
        modality: of the files.
        classes: name by label, or labels whose names are the same with spaces; without it, classes.csv
            (label,name). The order is that of the logits.
        templates: prompt templates; without it, the lines of prompts.txt.
        where: keeps the lines of labels.csv that have these values in these columns, and of classes.csv the classes
            that these lines have.
        rate: of audio, in Hz; recordings are resampled to it.
        seconds: of audio for a log-mel box: the loudest window of that length, or the whole, centred in silence.

    Raises:
        DataError: a list or file is missing or wrong, a label has no class, or the test split is empty.
        FieldError: rate or seconds are not positive.
    """
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise FieldError(f"folder: {name} is {value}; it must be positive")
    root = Path(data)
    if not root.is_dir():
        raise DataError(f"data is {data!r}; there is no such folder")
    rows, known = _rows(root, where or {}), classes_of(root, classes)
    if where and classes is None:
        known = tuple(one for one in known if one.label in {row.label for row in rows})
    return Folder(
        root=root,
        modality=modality,
        classes=known,
        templates=templates_of(root, templates),
        rows=_splits(root, rows, known),
        rate=rate,
        seconds=seconds,
    )
