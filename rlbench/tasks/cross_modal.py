"""Retrieval across sensors: which item of another sensor's gallery shows the thing that one sensor senses?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label, Modality, Split, Task, registry
from rlbench.core.errors import DataError, FieldError
from rlbench.core.registry import register

Match = Literal["class", "scene"]


@dataclass(frozen=True, kw_only=True)
class CrossModal:
    """Queries of one sensor, and a gallery of the same scenes as another sensor senses them.

    Attributes:
        of: the name of the task, which has a field `modality`.
        modality: the sensor of the queries.
        medium: the sensor of the gallery.
        count: scenes in the gallery of a procedural world; 0 for data, whose gallery is the whole test split.
        match: whether the first hit has to be of the query's class, or the very scene.
        at: for scenes, a query is right if its scene is among the first 1, 5 or 10.
        fields: of the task.
        series: of a procedural world.
    """

    of: str
    modality: Modality
    medium: Modality
    count: int = 0
    match: Match = "class"
    at: int = 1
    fields: Mapping[str, object] = field(default_factory=dict)
    series: int = 0

    def _make(self, modality: Modality) -> Task:
        series = {"series": self.series} if self.series else {}
        return cast(Task, registry.make("task", self.of, {**self.fields, **series, "modality": modality}))

    @cached_property
    def query(self) -> Task:
        """The task of the queries."""
        return self._make(self.modality)

    @cached_property
    def gallery(self) -> Task:
        """The task of the gallery."""
        return self._make(self.medium)

    @property
    def pairing(self) -> str:
        """`paired`, or `class-paired` if query k and item k only share their class."""
        pairings = {getattr(task, "pairing", "paired") for task in (self.query, self.gallery)}
        return "class-paired" if "class-paired" in pairings else "paired"

    @property
    def form(self) -> str:
        return f"({self.of}:{self.medium})" + (f"(R@{self.at})" if self.match == "scene" else "")

    @cached_property
    def gallery_size(self) -> int:
        """The number of items in the gallery, all that there are: finding a scene among fewer would be easier.

        Raises:
            FieldError: `count` is missing for a procedural world, or given for data.
            DataError: the sensors have different numbers of examples.
        """
        queries, items = (task.size("test") for task in (self.query, self.gallery))
        if items is None:
            if self.count < 2:
                raise FieldError(f"size is {self.count}; {self.of} has any number of scenes: give 2 or more", "size")
            return self.count
        if self.count:
            raise FieldError(f"size is {self.count}; the gallery is the whole test split: leave it out", "size")
        if self.pairing == "paired" and queries != items:
            raise DataError(
                f"{self.of}: {self.modality} has {queries} test examples and {self.medium} has {items}; each query "
                "needs its item in the gallery"
            )
        return items

    @cached_property
    def classes(self) -> tuple[Label, ...]:
        """The classes of the task, or one for each scene."""
        if self.match == "class":
            return self.query.classes
        return tuple(Label(str(k), f"scene {k}") for k in range(self.gallery_size))

    @property
    def templates(self) -> tuple[str, ...]:
        return self.query.templates if self.match == "class" else ("{}",)

    def size(self, split: Split) -> int | None:
        size = self.query.size(split)
        return self.gallery_size if size is None and split == "test" else size

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Loads queries start..stop-1. Raises: DataError: the gallery has other scenes at these places."""
        examples = self.query.load(box, start, stop, split)
        if split == "test":
            self._check_pairs(examples, start)
        return self._label(examples, start)

    def load_gallery(self, box: Box, start: int, stop: int) -> Examples:
        """Loads items start..stop-1 of the gallery at the box of its sensor, labelled as the queries are.

        Raises: DataError: an item can't be read, so that the gallery would not be complete.
        """
        stop = min(stop, self.gallery_size)
        examples = self.gallery.load(box, start, stop)
        if len(examples.ids) != stop - start:
            raise DataError(
                f"{self.of}: {self.medium} has {len(examples.ids)} of items {start} to {stop - 1}; a gallery has to be "
                "complete, since finding a scene among fewer is easier"
            )
        self._found.update({start + k: each for k, each in enumerate(_name(examples))})
        return self._label(examples, start)

    @cached_property
    def _found(self) -> dict[int, tuple[str, int]]:
        """The id and class of each item that was loaded, by its place."""
        return {}

    def _check_pairs(self, examples: Examples, start: int) -> None:
        if self.pairing != "paired":
            return
        for k, (own, label) in enumerate(_name(examples), start):
            item, other = self._found.get(k, (own, label))
            if item != own or other != label:
                what = f"{own!r} and {item!r}" if item != own else f"classes {label} and {other} of {own!r}"
                raise DataError(f"{self.of}: at place {k}, {self.modality} and {self.medium} have {what}")

    def _label(self, examples: Examples, start: int) -> Examples:
        if self.match == "class":
            return examples
        return replace(examples, y=torch.arange(start, start + len(examples.y)))

    def fingerprint(self) -> str:
        """A hash of the queries and of the gallery."""
        parts = [self.query.fingerprint(), self.gallery.fingerprint(), self.medium, self.gallery_size, self.match]
        return hashlib.sha256(f"{parts} {self.pairing}".encode()).hexdigest()[:16]

    def notes(self) -> list[str]:
        """Notes of the task, of each sensor."""
        notes = [note for task in (self.query, self.gallery) for note in getattr(task, "notes", tuple)()]
        if self.pairing != "paired":
            notes.append(f"{self.of}: {self.modality} and {self.medium} are independent and share only their class")
        return list(Counter(notes))


class CrossModalSound(CrossModal):
    """Retrieval by sounds, which corruptions get as waveforms (`inputs.Recorded`)."""

    def rate_of(self, box: Box) -> int:
        return int(cast(Any, self.query).rate_of(box))

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        waves: Tensor = cast(Any, self.query).waves(box, start, stop, split)
        return waves

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        x: Tensor = cast(Any, self.query).hear(waves, box)
        return x


def _name(examples: Examples) -> list[tuple[str, int]]:
    return list(zip(examples.ids, examples.y.tolist(), strict=True))


@register("task", "cross-modal")
def cross_modal(
    *,
    of: str,
    modality: Modality,
    gallery: Modality,
    size: int = 0,
    match: Match = "class",
    at: Literal[1, 5, 10] = 1,
    **fields: Any,
) -> CrossModal:
    """Retrieval across sensors: queries of one sensor, a gallery of the same scenes in another.

    Args:
        of: the task whose scenes are sensed, such as scenes; it has a field `modality`.
        modality: the sensor of the queries, which are attacked or corrupted.
        gallery: the sensor of the gallery, which stays clean.
        size: the number of scenes in the gallery of a procedural world; for data, the gallery is the whole test split.
        match: "class": right if the first hit is of the query's class. "scene": right if it is the very scene.
        at: of "scene", right if the scene is among the first `at`.
        **fields: of the task.

    Raises:
        FieldError: the two sensors are one, or a field is not for this task.
        UnknownName: there is no such task.
    """
    if gallery == modality:
        raise FieldError(f"gallery is {gallery}, the sensor of the queries; choose another sensor", "gallery")
    if match == "class" and at > 1:
        raise FieldError(f"at is {at}; it is for match: scene", "at")
    values: dict[str, Any] = {
        "of": of,
        "modality": modality,
        "medium": gallery,
        "count": size,
        "match": match,
        "at": at,
    }
    task = CrossModal(**values, fields=fields)
    if modality == "audio" and hasattr(task.query, "waves"):
        task = CrossModalSound(**values, fields=fields)
    if match == "scene" and task.pairing != "paired":
        raise FieldError(f"match is scene; {of} pairs sensors by class, not by scene: choose class", "match")
    if hasattr(task.gallery, "series"):
        _ = task.gallery_size  # raises FieldError; of data, it is known once they are read
    return task
