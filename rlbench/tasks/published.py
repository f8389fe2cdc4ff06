"""What published data sets share: where a copy is, which examples it has in which order, and its fingerprint.

Nothing is downloaded. A task is made without its data; what needs a file says where to get it if it is not there.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.documents import expand_user
from rlbench.core.errors import DataError
from rlbench.core.media.readers import VERSIONS, read
from rlbench.tasks.folder import describe_untested, interleave
from rlbench.tasks.hashes import digests
from rlbench.tasks.recordings import Recordings
from rlbench.tasks.trees import Item, describe_left_out

__all__ = ["Item", "Published", "Source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from and what a whole copy has.

    Attributes:
        title, url, licence: its name, its page, and what the page allows.
        folder: its place below RLBENCH_DATA.
        layout: what that folder holds.
        test: examples of the test split by default; 0 where that is not known.
        md5: of files that every copy has, by path; an absent path is another layout's.
        partial: whether some media can't be had any more, so that those at hand are the test split.
    """

    title: str
    url: str
    licence: str
    folder: str
    layout: str
    test: int = 0
    md5: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Published(Recordings, ABC):
    """A published data set on disk.

    Attributes:
        root: the folder of the copy; without it, the data set's own folder below the environment's RLBENCH_DATA.
        rate: of sound for a box without a rate of its own, Hz.
        seconds: of sound for a log-mel box.
    """

    root: str = ""
    rate: int = field(default=16_000, init=False)
    seconds: float = field(default=1.0, init=False)

    source: ClassVar[Source]
    kind: ClassVar[Modality]

    @property
    @abstractmethod
    def classes(self) -> tuple[Label, ...]:
        """In the order of the labels."""

    @property
    @abstractmethod
    def templates(self) -> tuple[str, ...]:
        """Of the prompts."""

    @abstractmethod
    def list_items(self, split: Split) -> Sequence[Item]:
        """The examples of a split, in any order. Raises: DataError."""

    @property
    def modality(self) -> Modality:
        return self.kind

    @property
    def form(self) -> str:
        """What is measured of it, where that is not the usual, for its name in records."""
        return ""

    @property
    def folder(self) -> Path:
        """The copy. Raises: DataError, which says where to get it."""
        about, base = self.source, os.environ.get("RLBENCH_DATA")
        get = f"get {about.title} from {about.url} (licence: {about.licence}); it holds {about.layout}"
        if not self.root and not base:
            raise DataError(f"no data: set root, or export RLBENCH_DATA=<the folder of {about.folder}/>; {get}")
        folder = expand_user(self.root or str(Path(str(base)) / about.folder))
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; {get}")
        return folder

    def misplaced(self, what: str) -> DataError:
        """That the copy lacks something, and how it should look."""
        return DataError(f"{self.folder} has no {what}; {self.source.title} must hold {self.source.layout}")

    def read(self, item: Item, box: Box) -> np.ndarray:
        """An example at the box, float32 in [0, 1]. Raises: DataError."""
        path = self.folder / item.path
        return read(path, self.modality, box, rate=self.rate, seconds=self.seconds, part=item.part)

    def items(self, split: Split = "test") -> tuple[Item, ...]:
        """The examples of a split in their order: classes in turns, each by hash of id. Raises: DataError."""
        if split not in self._items:
            self.left.clear()
            found = self.list_items(split)
            self._check_ids(found)
            known = {one.label for one in self.classes}
            orphan = next((item for item in found if item.label not in known), None)
            if orphan is not None:
                raise DataError(f"{self.folder}: {orphan.id} has the label {orphan.label!r}, which is no class")
            self._items[split] = interleave(found, self.classes, lambda item: item.id)
        return self._items[split]

    def _check_ids(self, found: Sequence[Item]) -> None:
        """Raises: DataError where two examples have one name: randomness and records tell examples apart by it."""
        paths: dict[str, str] = {}
        for item in found:
            if item.id in paths:
                files = " and ".join(dict.fromkeys((paths[item.id], item.path)))
                raise DataError(f"{self.folder}: {item.id!r} is there twice, as {files}; take one away")
            paths[item.id] = item.path

    @cached_property
    def left(self) -> Counter[str]:
        """Suffixes of the files that are left out of the split that was listed last, and how many."""
        return Counter()

    def notes(self) -> tuple[str, ...]:
        """What is not as one may expect, and no mistake: files that are left out, a copy that is not whole."""
        items, whole = self.items(), self.source.test
        notes = [f"{self.folder}: {note}" for note in describe_left_out(self.left)]
        if whole and len(items) != whole:
            notes.append(f"{self.folder} has {len(items):,} test examples; {self.source.title} has {whole:,}")
        return (*notes, *([] if self.source.partial else describe_untested(self.classes, items)))

    @cached_property
    def _items(self) -> dict[Split, tuple[Item, ...]]:
        return {}

    def size(self, split: Split) -> int | None:
        return len(self.items(split))

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Examples start..stop-1 of the split, or as many as there are. Raises: DataError, naming the file."""
        items = self.items(split)[start:stop]
        index = {one.label: k for k, one in enumerate(self.classes)}
        arrays = [self.read(item, box) for item in items]
        unit = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, *box.shape)
        return Examples(
            box.low + (box.high - box.low) * unit,
            torch.tensor([index[item.label] for item in items], dtype=torch.int64),
            tuple(item.id for item in items),
            tuple(item.source for item in items),
        )

    def paths(self, start: int, stop: int, split: Split) -> list[Path]:
        """The files of examples start..stop-1. Raises: DataError."""
        return [self.folder / item.path for item in self.items(split)[start:stop]]

    def fingerprint(self) -> str:
        """A hash of the fields, of the test examples' names, labels and parts, and of their files' bytes."""
        values = [getattr(self, one.name) for one in fields(self) if one.name != "root"]
        labels = [one.label for one in self.classes]
        version, items = VERSIONS.get(self.modality, 1), self.items()
        digest = hashlib.sha256(f"{type(self).__name__} {version} {values} {labels}\n".encode())
        hashes = digests({self.folder / item.path for item in items})
        for item in items:
            content = hashes[self.folder / item.path].hex()
            digest.update(f"{item.id} {item.label} {item.source} {item.part} {content}\n".encode())
        return digest.hexdigest()[:16]
