"""Linear classifiers with a known minimal norm, and callables that answer labels only and count their queries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlbench.core import Norm


@dataclass(eq=False)
class AffineScores:
    """z = W (x - 1/2) + b on (1, d) inputs near the middle of [0, 1], so that the box does not bind.

    Attributes:
        d, classes, n: coordinates, classes and examples.
        answered: (n,) queries of each example, counted by `labels` for rows that are told apart by `tell`.
    """

    d: int = 64
    classes: int = 2
    n: int = 16
    seed: int = 0
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(self.seed)
        self.w = torch.randn(self.classes, self.d, generator=g) / self.d**0.5
        self.b = 0.1 * torch.randn(self.classes, generator=g)
        self.x = 0.5 + 0.2 * (torch.rand(self.n, 1, self.d, generator=g) - 0.5)
        self.y = self(self.x).argmax(1)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1, d) -> (B, classes) scores, row by row: bit by bit the same in every batch."""
        return torch.stack([self.w @ (row.flatten() - 0.5) + self.b for row in x])

    def one_hot(self, x: Tensor) -> Tensor:
        """(B, 1, d) -> (B, classes): 1 for the predicted class, -1 for the others."""
        return 2.0 * torch.nn.functional.one_hot(self(x).argmax(1), self.classes) - 1

    def minimal_norm(self, norm: Norm) -> Tensor:
        """(n,) float64: the distance to the nearest boundary, by the dual norm of the difference of two rows."""
        z, w = self(self.x).double(), self.w.double()
        dual = torch.cdist(w, w, p=1 if norm == "linf" else 2)[self.y]
        reach = (z.gather(1, self.y[:, None]) - z) / dual
        return reach.scatter(1, self.y[:, None], float("inf")).amin(1)


class CountingBox:
    """A `core.Classifier` that counts the queries of every example and has a batch size."""

    def __init__(self, classify: object, n: int, batch_size: int) -> None:
        self.classify, self.batch_size, self.largest = classify, batch_size, 0
        self.count = torch.zeros(n, dtype=torch.int64)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        rows = torch.arange(len(x)) if rows is None else rows
        self.count.index_add_(0, rows, torch.ones_like(rows))
        self.largest = max(self.largest, len(x))
        return self.classify(x)  # type: ignore[operator,no-any-return]
