"""Several sensors at once: their joint box, and a task that gives one input per sensor of the same thing.

The joint box has one vector per example: the sensors' inputs, each scaled to [0, 1], one after another. So an attack,
the judge and the store treat several sensors as one input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from itertools import zip_longest
from math import prod
from typing import TYPE_CHECKING, Any, cast

from rlbench.core.box import Box
from rlbench.core.errors import DataError, FieldError
from rlbench.core.types import Examples, Label, Modality, Split, Task

if TYPE_CHECKING:
    from torch import Tensor

PAIRINGS = ("paired", "class-paired")  # the same thing at the same moment, or independent examples of one class


@dataclass(frozen=True, kw_only=True)
class JointBox(Box):
    """The box of several sensors: a vector in [0, 1].

    Attributes:
        parts: each sensor and its own box, in the order of the vector.
    """

    parts: tuple[tuple[Modality, Box], ...]

    @cached_property
    def spans(self) -> dict[Modality, tuple[int, int]]:
        """The coordinates (start, stop) of each sensor."""
        found, start = {}, 0
        for sensor, box in self.parts:
            found[sensor] = start, start + prod(box.shape)
            start = found[sensor][1]
        return found

    def facts(self) -> list[object]:
        """The fields that rendered examples depend on, as JSON."""
        return [[sensor, box.facts()] for sensor, box in self.parts]

    def split(self, x: Tensor, sensor: Modality) -> Tensor:
        """(B, D) in the joint box -> (B, *box.shape) in a sensor's box, differentiable in x.

        Rounding may put the largest values above the box: they are clamped, and keep their gradient.
        """
        box, (start, stop) = dict(self.parts)[sensor], self.spans[sensor]
        value = box.low + (box.high - box.low) * x[:, start:stop].reshape(-1, *box.shape)
        return value + (value.clamp(box.low, box.high) - value).detach()

    def join(self, inputs: Mapping[Modality, Tensor]) -> Tensor:
        """The inverse of `split`; float32."""
        import torch  # here, since `rlbench list` reads suites without it

        units = [(inputs[sensor] - box.low) / (box.high - box.low) for sensor, box in self.parts]
        return torch.cat([unit.flatten(1).clamp(0, 1) for unit in units], dim=1)


def joint_box(boxes: Mapping[Modality, Box]) -> JointBox:
    """The joint box of sensors with these boxes."""
    size = sum(prod(box.shape) for box in boxes.values())
    return JointBox(shape=(size,), unit="joint", parts=tuple(boxes.items()))


@dataclass(frozen=True)
class SensorTask:
    """A task with several sensors: per example, an input of each, of the same thing at the same moment.

    A sensor's task may have `pairing`, "class-paired" if only the class of its example k is that of the other sensors'
    example k. Otherwise the ids must be equal, which `load` checks.

    Attributes:
        tasks: the task of each sensor, with the same classes.
    """

    tasks: Mapping[Modality, Task]

    @property
    def modality(self) -> str:
        """The sensors: `image+audio`."""
        return "+".join(self.tasks)

    @property
    def first(self) -> Task:
        """The task of the first sensor."""
        return next(iter(self.tasks.values()))

    @property
    def classes(self) -> tuple[Label, ...]:
        return self.first.classes

    @cached_property
    def templates(self) -> tuple[str, ...]:
        """The templates of all sensors; a sensor's anchors have its own."""
        return tuple(dict.fromkeys(template for task in self.tasks.values() for template in task.templates))

    @property
    def pairing(self) -> str:
        """`paired` (the same thing at the same moment), or `class-paired` (independent examples of one class)."""
        found = {getattr(task, "pairing", "paired") for task in self.tasks.values()}
        return "class-paired" if "class-paired" in found else "paired"

    @property
    def series(self) -> int:
        """The series of procedural worlds; 0 for other tasks."""
        return int(getattr(self.first, "series", 0))

    def with_series(self, series: int) -> SensorTask:
        """The task with other test examples. Raises: FieldError: there are none."""
        for task in self.tasks.values():
            if not is_dataclass(task) or "series" not in {one.name for one in fields(task)}:
                raise FieldError("the task has one set of test examples; series is for procedural worlds")
        return SensorTask({s: replace(cast(Any, task), series=series) for s, task in self.tasks.items()})

    def notes(self) -> list[str]:
        """What users should know of the sensors' tasks."""
        found = [note for task in self.tasks.values() for note in getattr(task, "notes", tuple)()]
        if self.pairing == "class-paired":
            found.append(f"{self.modality}: the sensors' examples are independent and share only their class")
        return list(dict.fromkeys(found))

    def check(self) -> None:
        """Raises: DataError: the sensors have other classes, or other numbers of test examples."""
        (one, task), *others = self.tasks.items()
        for other, its in others:
            if differ := _find_difference(task.classes, its.classes):
                raise DataError(f"{one} and {other} have different classes: {differ}; sensors of a task need the same")
            sizes = task.size("test"), its.size("test")
            if sizes[0] != sizes[1]:
                raise DataError(
                    f"{one} has {sizes[0]} test examples and {other} has {sizes[1]}; each example needs an input of "
                    "every sensor"
                )

    def size(self, split: Split) -> int | None:
        return self.first.size(split)

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Examples start..stop-1 of the split in a joint box. Raises: DataError: they are not of the same things."""
        assert isinstance(box, JointBox)
        return self.join(box, {s: self.tasks[s].load(own, start, stop, split) for s, own in box.parts})

    def join(self, box: JointBox, examples: Mapping[Modality, Examples]) -> Examples:
        """One batch of several sensors' batches. Raises: DataError: they are not of the same things."""
        (one, first), *others = examples.items()
        for other, its in others:
            alike = self.pairing == "class-paired" or first.ids == its.ids
            if not alike or len(first.y) != len(its.y) or not bool((first.y == its.y).all()):
                raise DataError(_explain(one, first, other, its))
        ids = first.ids
        if self.pairing == "class-paired":
            ids = tuple("+".join(each) for each in zip(*(its.ids for its in examples.values()), strict=True))
        return Examples(box.join({s: its.x for s, its in examples.items()}), first.y, ids, first.sources)

    def fingerprint(self) -> str:
        return join_fingerprints({sensor: task.fingerprint() for sensor, task in self.tasks.items()}, self.pairing)


def join_fingerprints(found: Mapping[str, str], pairing: str) -> str:
    """The fingerprint of several sensors' examples.

    Args:
        found: of each sensor's task, in order.
        pairing: one of PAIRINGS.
    """
    text = " ".join([*(f"{sensor} {one}" for sensor, one in found.items()), pairing])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _find_difference(one: Sequence[Label], other: Sequence[Label]) -> str:
    """The first place where two lists of classes differ; "" where none does."""
    for k, (a, b) in enumerate(zip_longest(one, other)):
        if a is None or b is None or a.label != b.label:
            ours, theirs = (repr(each.label) if each else "no class" for each in (a, b))
            return f"at place {k}, {ours} and {theirs}"
    return ""


def _explain(one: str, first: Examples, other: str, its: Examples) -> str:
    """How two sensors' examples differ."""
    for k, ids in enumerate(zip(first.ids, its.ids, strict=False)):
        if ids[0] != ids[1]:
            return (
                f"{one} and {other} have different examples: at place {k}, {ids[0]!r} and {ids[1]!r}; the task "
                "paired-folder reads pairs of files of your own"
            )
    if len(first.ids) != len(its.ids):
        return (
            f"{one} has {len(first.ids)} examples and {other} has {len(its.ids)}; each needs an input of every sensor"
        )
    return f"{one} and {other} have different labels of the same examples"
