"""HopSkipJump: walks along the decision boundary towards the example, by labels alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from math import sqrt
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.decisions import CHUNK, Nearest, Search, inside, run_searches
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register

HALVINGS = 30  # of a step, after which it is too small for float32
Steps = Generator[Tensor, Tensor, Tensor]  # a part of a search that returns a point or a direction


@register("attack", "hopskipjump")
@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """HopSkipJump: estimates the boundary's normal from labels, steps along it, and returns to the boundary.

    Chen et al., 2020, https://arxiv.org/abs/1904.02144, algorithms 1 and 2 with the L2 distance; compared with ART's.
    A search begins at a random misclassified point and ends once the boundary point lies in the ball. Different from
    the paper: the precision of the binary search is 0.01 / sqrt(d) as in ART, since d^(-3/2) is below what float32 can
    tell apart on pictures; starting points are also corners of the box; the budget may end any step.

    Attributes:
        queries: the most forward passes of an example.
        b_0: queries of the first estimate of the normal; the estimate of step t takes b_0 sqrt(t).
    """

    queries: int = 5000
    b_0: int = 100
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})
    min_classes: ClassVar[int] = 2
    needs: ClassVar[Knowledge] = "label"
    leaves_ball: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("queries", self.queries), ("b_0", self.b_0)):
            if value < 1:
                raise FieldError(f"hopskipjump: {name} is {value}; it must be at least 1")

    def loss_used(self, n_classes: int) -> str:
        """The function that is minimised."""
        return "distance"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        return self.queries, 0

    def nearest(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> list[Nearest]:
        """Per example the nearest misclassified point, also outside the ball; one inside the ball ends its search."""
        found = [Nearest(row, "l2", row) for row in x]
        searches = [
            self._search(_Place(row, ball, numbers)) for row, numbers in zip(x, streams.generators(), strict=True)
        ]
        run_searches(classifier, y, searches, found, ball, self.queries)
        return found

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        if ball.radius == 0 or not len(x):
            return x
        return inside(self.nearest(classifier, x, y, ball, streams), ball)

    def _search(self, place: _Place) -> Search:
        """Algorithm 2, in its notation: x_t on the boundary, delta the radius of an estimate, xi the step."""
        x = place.x
        x_t = yield from place.bin_search((yield from place.start()))
        for t in count(1):
            far = float((x_t - x).norm())
            delta = 0.1 * place.range if t == 1 else sqrt(place.d) * place.theta * far
            v = yield from place.estimate(x_t, delta, int(self.b_0 * sqrt(t)))
            x_t = yield from place.bin_search((yield from place.jump(x_t, v, far / sqrt(t))))


@dataclass(frozen=True, eq=False)
class _Place:
    """The steps of a search around one example.

    Attributes:
        x: (*shape) the example.
        ball: whose box holds every point.
        numbers: the example's random numbers.
    """

    x: Tensor
    ball: Ball
    numbers: np.random.Generator

    @property
    def d(self) -> int:
        """Number of coordinates."""
        return self.x.numel()

    @property
    def theta(self) -> float:
        """Precision of the binary search, as a share of its segment."""
        return 0.01 / sqrt(self.d)

    @property
    def range(self) -> float:
        """Of the box."""
        return self.ball.high - self.ball.low

    def clip(self, points: Tensor) -> Tensor:
        """The points in the box."""
        return points.clamp(self.ball.low, self.ball.high)

    def start(self) -> Steps:
        """A random misclassified point: uniform, or a corner of the box, also in blocks, with some share of highs."""
        for k in count():
            length = 1 if k % 3 < 2 else 1 + int(self.numbers.integers(self.d))
            u = self.numbers.random(-(-self.d // length), dtype=np.float32)
            u = u if k % 3 == 0 else (u < self.numbers.random()).astype(np.float32)
            unit = torch.from_numpy(np.repeat(u, length)[: self.d]).to(self.x).view(self.x.shape)
            point = self.clip(self.ball.low + self.range * unit)
            if (yield point[None]):
                break
        return point

    def bin_search(self, x_adv: Tensor) -> Steps:
        """BIN-SEARCH, algorithm 1: the misclassified end of a short segment that crosses the boundary."""
        low, high, best = 0.0, 1.0, x_adv
        while high - low > self.theta:
            middle = (low + high) / 2
            point = self.clip(self.x + middle * (x_adv - self.x))
            if (yield point[None]):
                high, best = middle, point
            else:
                low = middle
        return best

    def estimate(self, x_t: Tensor, delta: float, b: int) -> Steps:
        """The boundary's unit normal at x_t, by eq. 9 and 16: the mean of phi_b u_b with the mean phi as baseline."""
        phi, u_sum, phi_u = 0.0, torch.zeros_like(x_t), torch.zeros_like(x_t)
        for first in range(0, b, CHUNK):
            shape = (min(CHUNK, b - first), *x_t.shape)
            u = torch.from_numpy(self.numbers.standard_normal(shape, dtype=np.float32)).to(x_t)
            u = u / u.flatten(1).norm(dim=1).view(-1, *[1] * x_t.dim())
            points = self.clip(x_t + delta * u)
            wrong = yield points
            sign = 2.0 * wrong.to(x_t) - 1
            u = (points[: len(sign)] - x_t) / delta  # what the box has left of it
            phi += float(sign.sum())
            u_sum, phi_u = u_sum + u.sum(0), phi_u + torch.tensordot(sign, u, 1)
        mean = phi / b
        v = phi_u - mean * u_sum if abs(mean) < 1 else phi_u
        unit: Tensor = v / v.norm().clamp_min(1e-20)
        return unit

    def jump(self, x_t: Tensor, v: Tensor, xi: float) -> Steps:
        """The first misclassified point x_t + xi v, where xi halves; x_t if there is none."""
        for k in range(HALVINGS):
            point = self.clip(x_t + xi / 2**k * v)
            if (yield point[None]):
                return point
        return x_t
