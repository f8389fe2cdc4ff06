"""Some examples of a task, by their numbers, as a task of its own: the same inputs, labels, ids and sources."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label, Modality, Split, Task
from rlbench.core.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Examples `rows` of the test split of a task. What depends on an example alone, as attacks do, does not change."""

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

    def size(self, split: Split) -> int | None:
        return len(self.rows) if split == "test" else 0

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Raises: DataError for another split."""
        if split != "test":
            raise DataError(f"these are rows of the test split; there is no {split} split of them")
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
class HeardRows(Rows):
    """Rows of a task of audio that has its waveforms (see `inputs.Recorded`)."""

    def rate_of(self, box: Box) -> int:
        return int(self.task.rate_of(box))  # type: ignore[attr-defined]

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        return torch.cat([self.task.waves(box, row, row + 1, split) for row in self.rows[start:stop]])  # type: ignore[attr-defined]

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        heard: Tensor = self.task.hear(waves, box)  # type: ignore[attr-defined]
        return heard


def of_rows(task: Task, rows: Sequence[int]) -> Rows:
    """Rows of a task, in this order."""
    return (HeardRows if hasattr(task, "waves") else Rows)(task, tuple(rows))
