"""What the four procedural worlds share: domains, class subsets, splits, and a seed per example.

A world has 16 classes. The backbone is trained on all of them in the clean "web" domain; tasks use the shifted
"sensor" domain. Adversarial fine-tuning sees the first 10 classes ("seen") and never the last 6 ("unseen").
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.seeds import generator
from rlbench.tasks.batch import stack

Domain = Literal["web", "sensor"]
Subset = Literal["seen", "unseen", "all"]
SEEN = 10


@dataclass(frozen=True, kw_only=True)
class World(ABC):
    """A procedural world. Train, validation and test examples come from disjoint seeds.

    Attributes:
        domain: "web" (broad, cleaner) or "sensor" (shifted; used by the tasks).
        subset: the classes that the task has, of 16.
        series: the number of one of many independent sets of examples; suites use 0.
        version: the generator's version, part of every seed and of the fingerprint: raise it on any change of a pixel.
    """

    domain: Domain = "sensor"
    subset: Subset = "seen"
    series: int = 0

    name: ClassVar[str]
    version: ClassVar[int]
    world_modality: ClassVar[Modality]
    world_classes: ClassVar[tuple[Label, ...]]
    world_templates: ClassVar[tuple[str, ...]]

    @abstractmethod
    def render(self, g: np.random.Generator, label: int, box: Box) -> np.ndarray:
        """Renders one example. Lengths are fractions of the picture, so that any box shows the same scene.

        Args:
            g: the example's random stream.
            label: the label of the class, 0 to 15.
            box: the encoder's box.

        Returns:
            An array shaped like the box, float in [0, 1], quantised to 8 bits.
        """

    @property
    def modality(self) -> Modality:
        return self.world_modality

    @property
    def labels(self) -> range:
        """The indices of the subset's classes among the 16."""
        return {"seen": range(SEEN), "unseen": range(SEEN, 16), "all": range(16)}[self.subset]

    @property
    def classes(self) -> tuple[Label, ...]:
        return tuple(self.world_classes[k] for k in self.labels)

    @property
    def templates(self) -> tuple[str, ...]:
        return self.world_templates

    def size(self, split: Split) -> int | None:
        return None

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Renders examples start..stop-1; classes alternate, so that every prefix is balanced."""
        ids, y = self.make_ids(start, stop, split), np.arange(start, stop) % len(self.labels)
        pictures = [self.render(g, label, box) for g, label in self.draw_examples(start, stop, split)]
        return Examples(stack(pictures, box), torch.from_numpy(y), ids, ids)

    def make_ids(self, start: int, stop: int, split: Split) -> tuple[str, ...]:
        """Makes the ids of examples start..stop-1, from which their seeds are derived."""
        parts = [self.name, self.domain, self.subset, split, *([f"series {self.series}"] if self.series else [])]
        return tuple("/".join([*parts, str(i)]) for i in range(start, stop))

    def draw_examples(self, start: int, stop: int, split: Split) -> Iterator[tuple[np.random.Generator, int]]:
        """Gives the random stream and the label, 0 to 15, of each example."""
        for i, example in zip(range(start, stop), self.make_ids(start, stop, split), strict=True):
            yield generator(self.version, example), self.labels[i % len(self.labels)]

    def fingerprint(self) -> str:
        text = f"{self.name} {self.version} {self.domain} {self.subset}{f' {self.series}' if self.series else ''}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
