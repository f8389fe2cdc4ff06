"""Webdatasets in CLIP_benchmark's layout: its published sets and any other folder of that layout (see `wds_layout`)."""

from __future__ import annotations

import hashlib
import os
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.documents import expand_user
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.core.media.readers import VERSIONS
from rlbench.core.media.stills import picture, pixels
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.hub_sets import COMMIT, find_snapshot
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.tar_index import Member, read_member
from rlbench.tasks.wds_layout import (
    Sample,
    check_kind,
    list_samples,
    parse_captions,
    parse_label,
    read_class_names,
    read_kind,
    read_prompt_templates,
)
from rlbench.tasks.wds_sets import LAYOUT, Kind, load_sets


@dataclass(frozen=True, kw_only=True)
class Sharded(Published, ABC):
    """A data set in shards.

    Attributes:
        dataset: name of a set of the catalogue, or of an own one.
        revision: the commit of its repository, or the beginning of one; "": the catalogue's.
        shuffle: seed of the order of the examples.
        resolution: rows and columns of the pictures and of the attack's box; 0: those of the encoder's box.
        logit_scale: of the zero-shot logits; None: the encoder's.
    """

    dataset: str = ""
    revision: str = ""
    shuffle: int = 0
    resolution: int = 0
    logit_scale: float | None = None

    kind: ClassVar[Modality] = "image"
    labels: ClassVar[Kind]

    @property
    def name(self) -> str:
        """Of the data set; its folder's, if it has none."""
        return self.dataset or Path(self.root).name

    @property
    def source(self) -> Source:  # type: ignore[override]
        """From the catalogue, if it has the set."""
        known = load_sets().get(self.dataset)
        if known is not None:
            return known.source
        return Source(title=f"wds/{self.name}", url="your own", licence="your own", folder="", layout=LAYOUT)

    @property
    def folder(self) -> Path:
        """`root`, the set's folder below RLBENCH_DATA, or its snapshot in the hub's cache. Raises: DataError."""
        if self.root:
            return self._given()
        known, base = load_sets()[self.dataset], os.environ.get("RLBENCH_DATA")
        place = expand_user(base) / known.folder if base and not self.revision else None
        here = place is not None and place.is_dir()
        found = place if here else find_snapshot(known.repo, self.revision or known.revision)
        if found is None:
            name = f"wds/{self.dataset}{f' --revision {self.revision}' if self.revision else ''}"
            raise DataError(
                f"no data of wds/{self.dataset}: run `rlbench data get {name}`, which downloads it from "
                f"{known.source.url} (licence: {known.source.licence}); or set root, or export RLBENCH_DATA=<the "
                f"folder of {known.folder}/>, which contains {LAYOUT}"
            )
        return found

    @property
    def commit(self) -> str:
        """The commit of a folder in the hub's cache; "" for another folder."""
        folder = self.folder
        return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else ""

    def _given(self) -> Path:
        folder = expand_user(self.root)
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; a webdataset contains {LAYOUT}")
        return folder

    def list_split(self, split: Split) -> list[tuple[Item, Sample]]:
        """Lists the samples of a split with their items, whose labels are not set. Raises: DataError."""
        folder = self.folder
        check_kind(folder, self.labels)
        if split == "val" or (split == "train" and not (folder / "train").is_dir()):
            return []
        ahead = "" if split == "test" else f"{split}/"  # keys of two splits may be the same
        found = []
        for sample in list_samples(folder, split, self.labels, self.left_out):
            name, member = f"{ahead}{sample.key}", sample.picture
            found.append((Item(name, sample.shard, "", name, (member.offset, member.size)), sample))
            self._members[name] = member
        return found

    @cached_property
    def _members(self) -> dict[str, Member]:
        """The pictures' members, by the examples' ids."""
        return {}

    def arrange(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Sorts examples by the hash of the seed and their ids: every prefix is a random sample of the split."""
        return tuple(sorted(items, key=lambda one: hashlib.blake2b(f"{self.shuffle} {one.id}".encode()).digest()))

    def read(self, item: Item, box: Box) -> np.ndarray:
        """Reads a picture at the box, float32 in [0, 1]. Raises: DataError, naming the tar and the member."""
        path, member = self.folder / item.path, self._members[item.id]
        name = f"{path}: {member.name}"
        found = picture(name, box.shape[0], read_member(path, member))
        if self.resolution and found.size != (self.resolution,) * 2:
            raise DataError(f"{name} is {found.width} x {found.height}; resolution is {self.resolution}, that of all")
        return pixels(found, box)

    def fingerprint(self) -> str:
        """A hash of the classes, and of the test examples' ids, labels and bytes, in their order."""
        labels = [(one.label, one.name) for one in self.classes] if self.labels == "classification" else []
        digest = hashlib.sha256(f"wds {VERSIONS.get(self.modality, 1)} {labels}\n".encode())
        for item in self.items():
            digest.update(f"{item.id} {item.label} {self._members[item.id].sha256}\n".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class WdsPictures(Sharded):
    """Pictures with one class each."""

    labels: ClassVar[Kind] = "classification"

    @property
    def form(self) -> str:
        return f"/{self.name}"

    @cached_property
    def _classes(self) -> tuple[Label, ...]:
        return read_class_names(self.folder)

    @property
    def classes(self) -> tuple[Label, ...]:
        return self._classes

    @cached_property
    def _templates(self) -> tuple[str, ...]:
        return read_prompt_templates(self.folder)

    @property
    def templates(self) -> tuple[str, ...]:
        return self._templates

    def list_items(self, split: Split) -> list[Item]:
        folder, classes, pairs = self.folder, len(self.classes), self.list_split(split)
        return [
            Item(item.id, item.path, parse_label(folder, sample, classes), item.source, item.part)
            for item, sample in pairs
        ]


@dataclass(frozen=True, kw_only=True)
class WdsCaptions(Captioned, Sharded):
    """Pictures with captions."""

    labels: ClassVar[Kind] = "retrieval"
    resolution: int = field(default=0, init=False)

    @property
    def form(self) -> str:
        return f"/{self.name}{super().form}"

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        return [(item, parse_captions(self.folder, sample)) for item, sample in self.list_split("test")]


def _check(dataset: str, root: str, revision: str, resolution: int, logit_scale: float | None) -> None:
    """Raises: FieldError, UnknownName: see `wds`."""
    if not dataset and not root:
        raise FieldError(
            "wds: give dataset, the name of a published set such as vtab/pets, or root, a folder", "dataset"
        )
    if not root and dataset not in load_sets():
        raise UnknownName("webdataset", dataset, load_sets())
    if revision and (root or not COMMIT.fullmatch(revision)):
        raise FieldError(
            f"wds: revision is {revision!r}; it must be a commit of a published set, not of root", "revision"
        )
    if resolution < 0 or resolution > 4096:
        raise FieldError(f"wds: resolution is {resolution}; it must be 1 to 4096, or 0 for the encoder's", "resolution")
    if logit_scale is not None and not 0 < logit_scale < float("inf"):
        raise FieldError(f"wds: logit_scale is {logit_scale}; it must be positive", "logit_scale")


@register("task", "wds")
def wds(
    *,
    dataset: str = "",
    root: str = "",
    revision: str = "",
    at: Literal[1, 5, 10] = 1,
    shuffle: int = 0,
    resolution: int = 0,
    logit_scale: float | None = None,
) -> Sharded:
    """A webdataset in CLIP_benchmark's layout: one of its published sets, such as vtab/pets, or any folder.

    The first n examples are a random sample of the test split, which depends on `shuffle` and on the keys alone: they
    are sorted by the hash of both. It is not the sample that the library webdataset would shuffle, which depends on the
    number of workers and shards. Pictures that are not of 8 bits are refused, and multilabel sets are.

    Args:
        dataset: name in the catalogue, see `rlbench data list`. Its data are searched below RLBENCH_DATA, then in the
            hub's cache, where `rlbench data get wds/NAME` puts them.
        root: the folder of the copy; required for a data set that is not in the catalogue.
        revision: the commit of the set's repository, or 7 digits or more of its beginning, as `rlbench data get
            --revision` takes it; default: the catalogue's, or the commit that was downloaded if that has none.
        at: of a set with captions: an example is correct if one of its captions is among the first 1, 5 or 10.
        shuffle: seed of the order of the examples.
        resolution: rows and columns of all pictures; the attack acts on pictures of this size, which are resized inside
            the model. Default: pictures are resized first, and the attack acts on the encoder's box.
        logit_scale: factor of the cosines in the logits; default: the encoder's.

    Raises:
        FieldError: a value is not allowed.
        UnknownName: no such data set.
        DataError: `root` is missing, or is multilabel. Its contents are checked when they are first read.
    """
    _check(dataset, root, revision, resolution, logit_scale)
    known = load_sets().get(dataset)
    kind = known.kind if known is not None else read_kind(WdsPictures(root=root).folder)
    if kind == "retrieval":
        if resolution:
            raise FieldError("wds: resolution is for sets with classes, not captions", "resolution")
        return WdsCaptions(
            dataset=dataset, root=root, revision=revision, at=at, shuffle=shuffle, logit_scale=logit_scale
        )
    if at != 1:
        raise FieldError(f"wds: at is {at}; it is for sets with captions", "at")
    return WdsPictures(
        dataset=dataset, root=root, revision=revision, shuffle=shuffle, resolution=resolution, logit_scale=logit_scale
    )
