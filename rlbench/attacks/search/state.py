"""What the jobs of a search consist of: dataclasses of tensors with one row per job."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Rowwise")
M = TypeVar("M", bound="Rowwise | None")


@dataclass(eq=False)
class Rowwise:
    """Base of dataclasses whose fields have one row per job: tensors, None, or further such dataclasses."""

    def take(self, rows: Tensor) -> Self:
        """A new object with the rows (K,) of every field."""
        return replace(self, **{f.name: _take(getattr(self, f.name), rows) for f in fields(self)})

    def join(self, other: Self) -> Self:
        """A new object with the rows of both, those of `other` last; a field must be None in both or in neither."""
        return replace(self, **{f.name: _join(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})


def _take(value: Any, rows: Tensor) -> Any:
    if value is None:
        return None
    return value.take(rows) if isinstance(value, Rowwise) else value[rows]


def _join(one: Any, other: Any) -> Any:
    if one is None:
        return None
    return one.join(other) if isinstance(one, Rowwise) else torch.cat([one, other])


@dataclass(eq=False)
class JobPoints(Rowwise):
    """The current points of jobs.

    Attributes:
        example: (B,) int64 indices of the examples, on the CPU.
        turn: (B,) int64 indices of the jobs among those of their examples.
        x_adv: (B, *shape) points in the balls.
        y: (B,) int64 labels.
    """

    example: Tensor
    turn: Tensor
    x_adv: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.example)


@dataclass(eq=False)
class Jobs(JobPoints, Generic[M]):
    """Running jobs.

    Attributes:
        x: (B, *shape) centres of the balls.
        target: (B,) int64 target classes.
        steps: (B,) int64 steps taken.
        low: (B, *shape) lower bounds of the balls in the box; None in L2.
        high: (B, *shape) upper bounds of the balls in the box; None in L2.
        memory: the memory of the rule; None for a rule without memory.
    """

    x: Tensor
    target: Tensor
    steps: Tensor
    low: Tensor | None
    high: Tensor | None
    memory: M


def join(old: B | None, new: B | None) -> B | None:
    """The rows of both batches, those of `new` last; None is an empty batch."""
    return old.join(new) if old is not None and new is not None else old if new is None else new


def select(batch: B, mask: Tensor) -> B | None:
    """The rows of a batch where the mask (B,) is true; None if there are none."""
    rows = mask.nonzero()[:, 0]
    return batch.take(rows) if len(rows) else None
