"""What the four procedural worlds share: domains, class subsets, splits, and a seed per example.

A world has 16 classes. The backbone learns all of them in the clean "web" domain; tasks use the shifted
"sensor" domain. The first 10 classes are `seen` in adversarial fine-tuning, the last 6 never are.
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

Domain = Literal["web", "sensor"]
Subset = Literal["seen", "unseen", "all"]
SEEN = 10


@dataclass(frozen=True, kw_only=True)
class World(ABC):
    """A procedural world. Train, validation and test examples come from seeds that never meet.

    Attributes:
        domain: "web" (broad, cleaner) or "sensor" (shifted; what the tasks use).
        subset: which of the 16 classes.
        series: which of many independent sets of examples; 0 is the suites' own.
        version: of the generator; part of every seed and of the fingerprint: raise it on any change of a pixel.
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
        """One example of class `label` (0..15): float in [0, 1], shaped like the box.

        Intensities are quantised to 8 bits. Lengths are fractions of the picture, so that any box shows the same scene.
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
        """Examples start..stop-1; classes alternate, so that every prefix is balanced."""
        ids, y = self.ids(start, stop, split), np.arange(start, stop) % len(self.labels)
        pictures = [self.render(g, label, box) for g, label in self.draws(start, stop, split)]
        unit = torch.from_numpy(np.stack(pictures).astype(np.float32)) if pictures else torch.empty(0, *box.shape)
        return Examples(box.low + (box.high - box.low) * unit, torch.from_numpy(y), ids, ids)

    def ids(self, start: int, stop: int, split: Split) -> tuple[str, ...]:
        """What the examples' seeds are made of."""
        parts = [self.name, self.domain, self.subset, split, *([f"series {self.series}"] if self.series else [])]
        return tuple("/".join([*parts, str(i)]) for i in range(start, stop))

    def draws(self, start: int, stop: int, split: Split) -> Iterator[tuple[np.random.Generator, int]]:
        """Each example's randomness and label, 0 to 15."""
        for i, example in zip(range(start, stop), self.ids(start, stop, split), strict=True):
            yield generator(self.version, example), self.labels[i % len(self.labels)]

    def fingerprint(self) -> str:
        text = f"{self.name} {self.version} {self.domain} {self.subset}{f' {self.series}' if self.series else ''}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
