"""A task made of selected test examples of another: the same inputs, labels, ids and sources."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label, Modality, Split, Task
from rlbench.core.sensors import SensorTask


@dataclass(frozen=True)
class TaskSubset:
    """Selected examples of a task. What depends on one example alone, such as an attack, gives the same result.

    Its other splits are those of the whole task.

    Attributes:
        task: the whole task.
        rows: indices into its test split.
    """

    task: Task
    rows: tuple[int, ...]

    @property
    def modality(self) -> Modality:
        return self.task.modality

    @property
    def classes(self) -> tuple[Label, ...]:
        return self.task.classes

    @property
    def templates(self) -> tuple[str, ...]:
        return self.task.templates

    @property
    def views(self) -> int:
        """Of a clip, as the whole task has them; so are `resolution` and `logit_scale` (see `retrieval.head_of`)."""
        return getattr(self.task, "views", 1)

    @property
    def resolution(self) -> int:
        return getattr(self.task, "resolution", 0)

    @property
    def logit_scale(self) -> float | None:
        return getattr(self.task, "logit_scale", None)

    @property
    def pairing(self) -> str:
        """As the whole task has it (see `core.sensors`)."""
        return getattr(self.task, "pairing", "paired")

    def size(self, split: Split) -> int | None:
        return len(self.rows) if split == "test" else self.task.size(split)

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        if split != "test":
            return self.task.load(box, start, stop, split)
        parts = [self.task.load(box, row, row + 1) for row in self.rows[start:stop]]
        return Examples(
            torch.cat([part.x for part in parts]),
            torch.cat([part.y for part in parts]),
            tuple(part.ids[0] for part in parts),
            tuple(part.sources[0] for part in parts),
        )

    def fingerprint(self) -> str:
        text = f"{self.task.fingerprint()} {self.rows}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RecordedSubset(TaskSubset):
    """Selected examples of an audio task that provides waveforms (see `inputs.Recorded`)."""

    def rate_of(self, box: Box) -> int:
        return int(self.task.rate_of(box))  # type: ignore[attr-defined]

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        return torch.cat([self.task.waves(box, row, row + 1, split) for row in self.rows[start:stop]])  # type: ignore[attr-defined]

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        x: Tensor = self.task.hear(waves, box)  # type: ignore[attr-defined]
        return x


def select_examples(task: Task, rows: Sequence[int]) -> Task:
    """Makes a task of some test examples of another.

    Args:
        task: the whole task.
        rows: indices into its test split, in the order of the new task.
    """
    if isinstance(task, SensorTask):
        return cast(Task, SensorTask({s: select_examples(one, rows) for s, one in task.tasks.items()}))
    return (RecordedSubset if hasattr(task, "waves") else TaskSubset)(task, tuple(rows))
