"""The best point so far of every example, for attacks that ask about one candidate after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import BROKEN
from rlbench.core import Classifier
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import per_row


@dataclass
class Best:
    """Per example the candidate of the smallest margin, and whether the example still stands.

    Attributes:
        x_adv: (N, *shape) the best candidates; x until one was offered.
        margin: (N,) of x_adv; infinite until then. NaN logits are the classifier's error: they count as broken.
        alive: (N,) bool, not broken by more than what another batch may move (see `engine.BROKEN`).
    """

    classifier: Classifier
    x: Tensor
    y: Tensor
    x_adv: Tensor = field(init=False)
    margin: Tensor = field(init=False)
    alive: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.x_adv = self.x.clone()
        self.margin = torch.full((len(self.x),), float("inf"), device=self.x.device)
        self.alive = torch.ones(len(self.x), dtype=torch.bool, device=self.x.device)

    @property
    def rows(self) -> Tensor:
        """(R,) int64, the examples that still stand."""
        return self.alive.nonzero()[:, 0]

    def offer(self, rows: Tensor, candidates: Tensor) -> None:
        """One forward pass of `candidates` (R, *shape), of the examples `rows` (R,); the better points are kept."""
        with torch.no_grad():
            logits = self.classifier(candidates, rows=rows)
        m = margin(logits, self.y[rows]).nan_to_num(nan=-float("inf"))
        scale = logits.abs().amax(1).nan_to_num(0.0)
        better = m < self.margin[rows]
        self.margin[rows] = torch.where(better, m, self.margin[rows])
        self.x_adv[rows] = torch.where(per_row(better, candidates), candidates, self.x_adv[rows])
        self.alive[rows] &= m >= -BROKEN * scale


@dataclass(frozen=True)
class Subset:
    """A classifier seen by an attack on some of the attacked batch's examples."""

    classifier: Classifier
    examples: Tensor

    @property
    def batch_size(self) -> int:
        return self.classifier.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.classifier(x, self.examples if rows is None else self.examples[rows.to(self.examples.device)])
