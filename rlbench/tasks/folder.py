"""A folder of files: labels.csv, classes.csv, prompts.txt and images, recordings or clips."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media.readers import VERSIONS, read
from rlbench.core.media.stills import picture, planes
from rlbench.core.registry import register
from rlbench.tasks.batch import collate
from rlbench.tasks.hashes import hash_files
from rlbench.tasks.listing import check_paths, check_splits, explain_missing, is_file, parse_split
from rlbench.tasks.lists import Line, drop_fraction, read_lines, read_table
from rlbench.tasks.recordings import Recordings
from rlbench.tasks.trees import describe_left_out


@dataclass(frozen=True, slots=True)
class Row:
    """A row of labels.csv: a file, its label, its split, and the recording or date that it comes from."""

    path: str
    label: str
    split: str
    source: str


def _read_rows(root: Path, where: Mapping[str, str]) -> list[Row]:
    """Reads the rows of labels.csv whose columns have the values of `where`. All rows are checked."""
    path, lines = root / "labels.csv", dict[str, Line]()
    for line in read_table(path, ("path", "label", "split", "source", *where)):
        if line["path"] in lines:
            raise line.error(f"{line['path']!r} appears twice")
        lines[line["path"]] = line
    check_splits(lines.values())
    check_paths(root, lines)
    rows = [
        Row(line["path"], line["label"], parse_split(line), line["source"])
        for line in lines.values()
        if all(drop_fraction(line[column]) == drop_fraction(value) for column, value in where.items())
    ]
    missing = [row.path for row in rows if not is_file(root / row.path)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{path} names files that are missing from {root}: {', '.join(path[:80] for path in missing[:3])}{more}"
            f"{explain_missing(root, missing[0])}"
        )
    return rows


def read_classes(root: Path, given: str | Mapping[str, str] | Sequence[str] | None) -> tuple[Label, ...]:
    """Makes the classes of names by label or of labels, or reads them from a CSV file, by default classes.csv.

    Raises: DataError.
    """
    if given is None or isinstance(given, str):
        try:
            lines = list(read_table(root / (given or "classes.csv"), ("label", "name")))
        except DataError as error:
            raise DataError(f"{error}{'; or give classes in the suite' * (given is None)}") from error
        pairs = [(line["label"], line["name"]) for line in lines]
    elif isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        pairs = [(label, label.replace("_", " ")) for label in given]
    labels = [label for label, _ in pairs]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise DataError(f"classes are {', '.join(labels) or 'none'}; there must be two or more, without duplicates")
    return tuple(Label(label, name) for label, name in pairs)


def read_templates(root: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """Checks the given prompt templates, by default the lines of prompts.txt. Raises: DataError."""
    try:
        lines = read_lines(root / "prompts.txt") if given is None else given
    except DataError as error:
        raise DataError(f"{error}; or give templates in the suite") from error
    templates = tuple(line.strip() for line in lines if line.strip())
    for template in templates or ("",):
        if "{}" not in template and "{a}" not in template:
            raise DataError(
                f"templates: {template!r} must contain {{}}, the class name, or {{a}}, the same with an article"
            )
    return templates


class LabelledFile(Protocol):
    """What `interleave` sorts."""

    @property
    def label(self) -> str: ...

    @property
    def path(self) -> str: ...


E = TypeVar("E", bound=LabelledFile)


def _get_path(one: LabelledFile) -> str:
    return one.path


def interleave(rows: Sequence[E], classes: Sequence[Label], key: Callable[[E], str] = _get_path) -> tuple[E, ...]:
    """Sorts examples so that every prefix is balanced: classes alternate, each sorted by the hash of a key."""
    by_label: dict[str, list[E]] = {one.label: [] for one in classes}
    for row in sorted(rows, key=lambda row: hashlib.blake2b(key(row).encode()).digest()):
        by_label[row.label].append(row)
    turns = zip_longest(*by_label.values())
    return tuple(row for row in chain.from_iterable(turns) if row is not None)


def describe_untested(classes: Sequence[Label], tested: Sequence[LabelledFile]) -> list[str]:
    """Describes classes without a test example in one note, or none if there are none."""
    used = {one.label for one in tested}
    without = [one.label for one in classes if one.label not in used]
    named = f"{', '.join(without[:3])}{', ...' * (len(without) > 3)}"
    return [f"{len(without):,} of {len(classes):,} classes have no test example: {named}"] if without else []


def _make_splits(
    root: Path, rows: Sequence[Row], classes: Sequence[Label], per_class: int = 0
) -> dict[str, tuple[Row, ...]]:
    """Sorts the rows by split, and checks that every label is a class and that the test split is not empty."""
    known, path = {one.label for one in classes}, root / "labels.csv"
    rows = [row if row.label in known else replace(row, label=drop_fraction(row.label)) for row in rows]
    if per_class:
        rows = [row for row in rows if row.label in known]
    orphan = next((row for row in rows if row.label not in known), None)
    if orphan is not None:
        raise DataError(f"classes has no {orphan.label!r}, the label of {orphan.path} in {path}; add it to classes")
    splits = {split: interleave([row for row in rows if row.split == split], classes) for split in get_args(Split)}
    if not splits["test"]:
        raise DataError(f"data has nothing to test: no line of {path} has the split 'test'")
    return {**splits, "test": _take_per_class(splits["test"], classes, per_class, path)} if per_class else splits


def _take_per_class(rows: Sequence[Row], classes: Sequence[Label], count: int, path: Path) -> tuple[Row, ...]:
    """The first `count` rows of each class; since classes alternate, row k has class k mod C. Raises: DataError."""
    found = Counter(row.label for row in rows)
    for label in (one.label for one in classes):
        if found[label] < count:
            raise DataError(f"per_class is {count}; {path} has {found[label]} test examples of {label!r}: lower it")
    taken = Counter[str]()
    chosen = []
    for row in rows:
        taken[row.label] += 1
        if taken[row.label] <= count:
            chosen.append(row)
    return tuple(chosen)


@dataclass(frozen=True, kw_only=True)
class Folder(Recordings):
    """The task of a folder whose lists have been checked.

    Attributes:
        root: the folder.
        modality: the modality of the files.
        classes: the classes in the order of the logits.
        templates: the templates of the prompts.
        rows: the rows by split, in a fixed order.
        rate: samples a second of audio.
        seconds: the length of audio for a log-mel box.
        left_out: suffixes of files that are left out, and how many have each.
        pairing: "class-paired" if test example k has the same class in every folder with these classes.
    """

    root: Path
    modality: Modality
    classes: tuple[Label, ...]
    templates: tuple[str, ...]
    rows: Mapping[str, tuple[Row, ...]]
    rate: int
    seconds: float
    left_out: tuple[tuple[str, int], ...] = ()
    pairing: Literal["paired", "class-paired"] = "paired"

    def size(self, split: Split) -> int | None:
        return len(self.rows[split])

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Loads examples start..stop-1 of a split, or as many as exist. Ids are paths.

        Raises: DataError, naming the file that can't be read.
        """
        rows = self.rows[split][start:stop]
        return collate(
            [read(self.root / row.path, self.modality, box, rate=self.rate, seconds=self.seconds) for row in rows],
            box,
            classes=self.classes,
            labels=[row.label for row in rows],
            ids=[row.path for row in rows],
            sources=[row.source for row in rows],
        )

    def paths(self, start: int, stop: int, split: Split) -> list[Path]:
        """The files of examples start..stop-1."""
        return [self.root / row.path for row in self.rows[split][start:stop]]

    def picture(self, i: int, channels: int, split: Split = "train") -> tuple[np.ndarray, int]:
        """Reads a picture of an image task in full size, (C, H, W) uint8, and its class index.

        Raises: DataError, naming the file that can't be read.
        """
        row = self.rows[split][i]
        label = next(k for k, one in enumerate(self.classes) if one.label == row.label)
        return planes(picture(self.root / row.path, channels)), label

    def fingerprint(self) -> str:
        """A hash of the lists and of all files' bytes, over all splits."""
        labels = [one.label for one in self.classes]
        version = VERSIONS.get(self.modality, 1)
        digest = hashlib.sha256(f"folder {version} {self.modality} {self.rate} {self.seconds} {labels}".encode())
        self._add_files(digest)
        return digest.hexdigest()[:16]

    def _add_files(self, digest: hashlib._Hash) -> None:
        rows = list(chain.from_iterable(self.rows.values()))
        hashes = hash_files(self.root / row.path for row in rows)
        for row in rows:
            digest.update(f"{row} ".encode() + hashes[self.root / row.path])

    def notes(self) -> tuple[str, ...]:
        """Notes that are not errors: files left out, classes without test examples."""
        return (*describe_left_out(dict(self.left_out)), *describe_untested(self.classes, self.rows["test"]))


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise FieldError(f"folder: {name} is {value}; it must be positive")


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
    per_class: int = 0,
) -> Folder:
    """A folder of images, thermal images, recordings or clips with labels.csv.

    The lists are checked here, and that all files exist; the media are checked when they are read.

    Args:
        data: the folder. labels.csv has the columns path,label,split,source; paths are relative to the folder and may
            point outside it (../other/a.png). Splits are train, val and test.
        modality: the modality of the files.
        classes: names by label, or labels, whose names have spaces for underscores. Default: classes.csv, with the
            columns label,name. The order is that of the logits.
        templates: prompt templates. Default: the lines of prompts.txt.
        where: values by column; uses only the rows of labels.csv with these values, and, of classes.csv, only their
            classes.
        rate: the sample rate of audio in Hz; recordings are resampled to it.
        seconds: the length of audio for a log-mel box: the loudest window, or a shorter recording centred in silence.
        per_class: tests so many examples of each class and leaves out files of other classes, so that the sensors of a
            task can be folders that share only their classes: example k has the same class in each. 0: all examples.

    Raises:
        DataError: a list or file is missing or wrong, a label has no class, or the test split is empty.
        FieldError: rate, seconds or per_class are not positive.
    """
    _check_positive(rate=rate, seconds=seconds, per_class=per_class or 1)
    root = Path(data)
    if not root.is_dir():
        raise DataError(f"data is {data!r}; there is no such folder")
    rows, known = _read_rows(root, where or {}), read_classes(root, classes)
    if where and classes is None:
        known = tuple(one for one in known if one.label in {row.label for row in rows})
    return Folder(
        root=root,
        modality=modality,
        classes=known,
        templates=read_templates(root, templates),
        rows=_make_splits(root, rows, known, per_class),
        rate=rate,
        seconds=seconds,
        pairing="class-paired" if per_class else "paired",
    )
