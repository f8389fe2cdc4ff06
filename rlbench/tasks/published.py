"""What published data sets share: the folder of the copy, the examples in a fixed order, and the fingerprint.

Nothing is downloaded. A task is constructed without its data; an error says where to get the data if it is missing.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.documents import expand_user
from rlbench.core.errors import DataError
from rlbench.core.media.readers import VERSIONS, read
from rlbench.core.media.sounds import has_sound
from rlbench.tasks.batch import collate
from rlbench.tasks.folder import describe_untested, interleave
from rlbench.tasks.hashes import hash_files
from rlbench.tasks.recordings import Recordings
from rlbench.tasks.trees import Item, describe_left_out, index_by_stem, list_class_tree

__all__ = ["PAIRS", "Item", "Published", "Source"]
PAIRS = {"pairs": True}  # marks a field that a task of several sensors needs


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from and what a complete copy contains.

    Attributes:
        title: name of the data set.
        url: page to get it from.
        licence: terms of use as stated on that page.
        folder: its folder below RLBENCH_DATA.
        layout: what that folder contains.
        test: number of examples of the default test split; 0 if unknown.
        rounded: whether that number is only approximate.
        classes: number of classes, if only the data name them; 0 if unknown.
        md5: checksums by path; a missing path belongs to another layout.
        revision: the commit of its repository, or the branch where no commit is known; "" without a repository.
        partial: whether some media are no longer available, so that the available ones are the test split.
    """

    title: str
    url: str
    licence: str
    folder: str
    layout: str
    test: int = 0
    rounded: bool = False
    classes: int = 0
    md5: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Published(Recordings, ABC):
    """A published data set on disk.

    Attributes:
        root: the folder of the copy; without it, the data set's own folder below the environment's RLBENCH_DATA.
        rate: the sample rate of sound in Hz, for a box without its own rate.
        seconds: the length of sound, for a log-mel box.
    """

    root: str = ""
    rate: int = field(default=16_000, init=False)
    seconds: float = field(default=1.0, init=False)

    source: ClassVar[Source]
    kind: ClassVar[Modality]

    @property
    @abstractmethod
    def classes(self) -> tuple[Label, ...]:
        """The classes, in the order of the logits."""

    @property
    @abstractmethod
    def templates(self) -> tuple[str, ...]:
        """The prompt templates."""

    @abstractmethod
    def list_items(self, split: Split) -> Sequence[Item]:
        """The examples of a split, in any order. Raises: DataError."""

    @property
    def modality(self) -> Modality:
        return self.kind

    @property
    def form(self) -> str:
        """A suffix of the task's name in records, for a measure other than the usual one."""
        return ""

    @property
    def folder(self) -> Path:
        """The folder of the copy. Raises: DataError, which says where to get the data set."""
        about, base = self.source, os.environ.get("RLBENCH_DATA")
        get = f"get {about.title} from {about.url} (licence: {about.licence}); it contains {about.layout}"
        if not self.root and not base:
            raise DataError(f"no data: set root, or export RLBENCH_DATA=<the folder of {about.folder}/>; {get}")
        folder = expand_user(self.root or str(Path(str(base)) / about.folder))
        if not folder.is_dir():
            own = f"{about.title} contains {about.layout}"
            raise DataError(f"there is no folder {folder}; {get if about.folder else own}")
        return folder

    def layout_error(self, what: str) -> DataError:
        """Makes the error for a missing file or folder; it describes the expected layout."""
        return DataError(f"{self.folder} has no {what}; {self.source.title} must contain {self.source.layout}")

    def find_file(self, *candidates: str) -> Path:
        """Finds the first of some files, relative to the copy, that exists. Raises: DataError."""
        found = next((self.folder / name for name in candidates if (self.folder / name).is_file()), None)
        if found is None:
            raise self.layout_error(f"file {candidates[0]}")
        return found

    def find_folder(self, *candidates: str) -> Path:
        """Finds the first of some folders, relative to the copy, that exists. Raises: DataError."""
        found = next((self.folder / name for name in candidates if (self.folder / name).is_dir()), None)
        if found is None:
            raise self.layout_error(f"folder {candidates[0]}")
        return found

    def list_tree(self, folder: Path, suffixes: Collection[str]) -> list[Item]:
        """Lists the files of `folder/<class>/`; none if there is no such folder. Raises: DataError."""
        if not folder.is_dir():
            return []
        return list_class_tree(self.folder, folder, self.classes, suffixes, self.left_out)

    def index_files(self, folder: Path, suffixes: Collection[str]) -> dict[str, str]:
        """Maps the stems of a folder's files, at any depth, to paths relative to the copy. Raises: DataError."""
        return index_by_stem(self.folder, folder, suffixes, self.left_out)

    def keep_sounding(self, items: Sequence[Item]) -> list[Item]:
        """The films that have a sound track; the others count as left out. Raises: DataError: one can't be read."""
        sounding = [item for item in items if has_sound(self.folder / item.path)]
        if silent := len(items) - len(sounding):
            self.left_out["without sound"] += silent
        return sounding

    def read(self, item: Item, box: Box) -> np.ndarray:
        """Reads an example at the box, float32 in [0, 1]. Raises: DataError."""
        path = self.folder / item.path
        return read(path, self.modality, box, rate=self.rate, seconds=self.seconds, part=item.part)

    def read_all(self, items: Sequence[Item], box: Box) -> list[np.ndarray]:
        """Reads examples; see `read`. Raises: DataError."""
        return [self.read(item, box) for item in items]

    def items(self, split: Split = "test") -> tuple[Item, ...]:
        """The examples of a split in a fixed order (see `arrange`). Raises: DataError."""
        if split not in self._items:
            self.left_out.clear()
            items = self.list_items(split)
            self._check_ids(items)
            known = {one.label for one in self.classes}
            orphan = next((item for item in items if item.label not in known), None)
            if orphan is not None:
                raise DataError(f"{self.folder}: {orphan.id} has the label {orphan.label!r}, which is not a class")
            self._items[split] = self.arrange(items)
        return self._items[split]

    def arrange(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Sorts examples: classes alternate, each sorted by the hash of the id."""
        return interleave(items, self.classes, lambda item: item.id)

    def _check_ids(self, items: Sequence[Item]) -> None:
        """Raises: DataError if two examples share an id, which identifies them in records and seeds them."""
        paths: dict[str, str] = {}
        for item in items:
            if item.id in paths:
                files = " and ".join(dict.fromkeys((paths[item.id], item.path)))
                raise DataError(f"{self.folder}: {item.id!r} exists twice, as {files}; remove one")
            paths[item.id] = item.path

    @cached_property
    def left_out(self) -> Counter[str]:
        """How many files were left out of the split listed last, by suffix."""
        return Counter()

    def notes(self) -> tuple[str, ...]:
        """Notes that are not errors: files left out, an incomplete copy, classes without test examples."""
        items, whole = self.items(), 0 if self.source.rounded else self.source.test
        notes = [f"{self.folder}: {note}" for note in describe_left_out(self.left_out)]
        if whole and len(items) != whole:
            notes.append(f"{self.folder} has {len(items):,} test examples; {self.source.title} has {whole:,}")
        return (*notes, *([] if self.source.partial else describe_untested(self.classes, items)))

    @cached_property
    def _items(self) -> dict[Split, tuple[Item, ...]]:
        return {}

    def size(self, split: Split) -> int | None:
        return len(self.items(split))

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Loads examples start..stop-1 of a split, or as many as exist. Raises: DataError, naming the file."""
        items = self.items(split)[start:stop]
        return collate(
            self.read_all(items, box),
            box,
            classes=self.classes,
            labels=[item.label for item in items],
            ids=[item.id for item in items],
            sources=[item.source for item in items],
        )

    def paths(self, start: int, stop: int, split: Split) -> list[Path]:
        """The files of examples start..stop-1. Raises: DataError."""
        return [self.folder / item.path for item in self.items(split)[start:stop]]

    def fingerprint(self) -> str:
        """A hash of the fields, of the test examples' ids, labels and parts, and of their files' bytes.

        Fields with the metadata PAIRS count only where they differ from their defaults.
        """
        own = [one for one in fields(self) if one.name != "root"]
        values = [getattr(self, one.name) for one in own if not one.metadata]
        pairs = {one.name: value for one in own if one.metadata and (value := getattr(self, one.name)) != one.default}
        labels = [one.label for one in self.classes]
        version, items = VERSIONS.get(self.modality, 1), self.items()
        digest = hashlib.sha256(f"{type(self).__name__} {version} {values} {labels}{pairs or ''}\n".encode())
        hashes = hash_files({self.folder / item.path for item in items})
        for item in items:
            content = hashes[self.folder / item.path].hex()
            digest.update(f"{item.id} {item.label} {item.source} {item.part} {content}\n".encode())
        return digest.hexdigest()[:16]
