"""HopSkipJump: walks along the decision boundary towards the example, by labels alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from math import cos, pi, sin, sqrt
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.decisions import Nearest, Search, inside, run_searches
from rlbench.attacks.search.normals import Steps, estimate_normal, expect_cosine
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register

ANGLE = 5e-4  # radians: precision of a turn
STALLED = 0.999  # a step that leaves so much of the distance or more has stalled


@register("attack", "hopskipjump")
@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """HopSkipJump: estimates the boundary's normal from labels, and turns towards it along the boundary.

    Chen et al., 2020, https://arxiv.org/abs/1904.02144, algorithms 1 and 2 with the L2 distance; compared with ART's.
    A search begins at a random misclassified point and ends once the boundary point lies in the ball. Different from
    the paper: directions are orthogonal to x_t - x, so that an estimate improves on what is known; the step is the half
    circle of Reza et al., 2023, https://arxiv.org/abs/2308.03163, whose boundary point is the nearest one in the plane
    of x_t - x and v if the boundary is flat; a search that stalls begins again elsewhere, and is left if it can't
    become the nearest; the precision of the binary search is 0.01 / sqrt(d) as in ART, since d^(-3/2) is below what
    float32 can tell apart on pictures; starting points are also corners of the box; the budget may end any step.

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
        """One descent after another, without end."""
        best = float("inf")
        while True:
            best = min(best, (yield from self._descend(place, best)))

    def _descend(self, place: _Place, best: float) -> Generator[Tensor, Tensor, float]:
        """Algorithm 2, in its notation: x_t on the boundary, delta the radius of an estimate.

        Ends where it stalls, or where it is not expected to come nearer than `best`. Returns the distance.
        """
        x_t, stalls = (yield from place.bin_search((yield from place.start()))), 0
        for t in count(1):
            far, b = place.measure(x_t), int(self.b_0 * sqrt(t))
            delta = 0.1 * place.range if t == 1 else sqrt(place.d) * place.theta * far
            v = yield from estimate_normal(x_t, delta, b, ball=place.ball, numbers=place.numbers, across=x_t - place.x)
            x_t = yield from place.turn(x_t, v)
            near = place.measure(x_t)
            stalls = stalls + 1 if near > STALLED * far else 0
            if stalls == 2 or _foresee(far, near, expect_cosine(b, place.d)) > best:
                break
        return near


def _foresee(far: float, near: float, cosine: float) -> float:
    """The distance from a flat boundary, of which an estimate's share cosine^2 has brought `far` to `near`."""
    return far / sqrt(1 + ((far / near) ** 2 - 1) / cosine**2)


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

    def measure(self, x_t: Tensor) -> float:
        """The distance of a point, above 0."""
        return max(float((x_t - self.x).norm()), 1e-12)

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

    def turn(self, x_t: Tensor, v: Tensor) -> Steps:
        """The boundary point on the half circle from x_t to x in the plane of v, which is orthogonal to x_t - x."""
        across, low, high, best = x_t - self.x, 0.0, pi / 2, x_t
        aside = self.measure(x_t) * v
        while high - low > ANGLE:
            angle = (low + high) / 2
            point = self.clip(self.x + cos(angle) * (cos(angle) * across + sin(angle) * aside))
            if (yield point[None]):
                low, best = angle, point
            else:
                high = angle
        return best
