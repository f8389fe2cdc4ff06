"""The best point so far of every example, for attacks that try one candidate after another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import BROKEN
from rlbench.core import Classifier
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import per_row


@dataclass
class Incumbents:
    """Per example the candidate with the smallest margin, and whether the example is still correct.

    Attributes:
        classifier: the classifier of all examples.
        x: (N, *shape) clean examples.
        y: (N,) int64 labels.
        x_adv: (N, *shape) the best candidates; x until one is offered.
        margin: (N,) of x_adv; infinite until one is offered. NaN counts as broken: it is the classifier's error.
        alive: (N,) bool, the examples that are not broken beyond rounding (see `jobs.BROKEN`).
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
        """(R,) int64, the examples that are not broken yet."""
        return self.alive.nonzero()[:, 0]

    def offer(self, rows: Tensor, candidates: Tensor) -> None:
        """Classifies candidates in one call, and keeps those with a smaller margin.

        Args:
            rows: (R,) int64, the examples.
            candidates: (R, *shape) a point for each of them, in the ball.
        """
        with torch.no_grad():
            logits = self.classifier(candidates, rows=rows)
        m = margin(logits, self.y[rows]).nan_to_num(nan=-float("inf"))
        scale = logits.abs().amax(1).nan_to_num(0.0)
        better = m < self.margin[rows]
        self.margin[rows] = torch.where(better, m, self.margin[rows])
        self.x_adv[rows] = torch.where(per_row(better, candidates), candidates, self.x_adv[rows])
        self.alive[rows] &= m >= -BROKEN * scale
