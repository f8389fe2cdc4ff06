"""RayS: the nearest decision boundary along rays to the corners of a cube, by labels alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.search.decisions import Nearest, Search, inside, run_searches
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register


@register("attack", "rays")
@dataclass(frozen=True, kw_only=True)
class RayS:
    """RayS: searches the sign vector along which the boundary is nearest; needs labels only, no randomness.

    Chen & Gu, 2020, https://arxiv.org/abs/2006.12792, algorithms 1 to 3. It flips blocks of the sign vector, from the
    whole input down to single coordinates. A flip is kept if it brings the boundary nearer: one query tells that it
    does not, and a binary search finds the new radius. A search ends once its radius is at most eps. Different from the
    paper: the first sign vector is also tried unflipped; after the stage of single coordinates that stage repeats; the
    binary search ends at a relative precision.

    Attributes:
        queries: the most forward passes of an example.
        tol: relative precision of the binary search of a radius.
    """

    queries: int = 5000
    tol: float = 1e-3
    norms: ClassVar[frozenset[Norm]] = frozenset({"linf"})
    min_classes: ClassVar[int] = 2
    needs: ClassVar[Knowledge] = "label"
    leaves_ball: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise FieldError(f"rays: queries is {self.queries}; it must be at least 1")
        if not 0 < self.tol < 1:
            raise FieldError(f"rays: tol is {self.tol}; it must be above 0 and below 1")

    def loss_used(self, n_classes: int) -> str:
        """The function that is minimised."""
        return "distance"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        return self.queries, 0

    def nearest(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball) -> list[Nearest]:
        """Per example the nearest misclassified point, also outside the ball; one inside the ball ends its search."""
        found = [Nearest(row, "linf", row) for row in x]
        searches = [self._search(row, ball) for row in x]
        run_searches(classifier, y, searches, found, ball, self.queries)
        return found

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        if ball.radius == 0 or not len(x):
            return x
        return inside(self.nearest(classifier, x, y, ball), ball)

    def _search(self, x: Tensor, ball: Ball) -> Search:
        """Algorithm 3: d is the best sign vector, r its radius; above `ball.high - ball.low` no boundary was found."""
        largest = ball.high - ball.low
        d, r = torch.ones_like(x), 2 * largest
        for block in _blocks(x.numel()):
            d_new = d.clone()
            d_new.view(-1)[block] *= -1
            r_new = yield from self._radius(x, d_new, min(r, largest), ball)
            if r_new < r:
                d, r = d_new, r_new

    def _radius(self, x: Tensor, d: Tensor, r: float, ball: Ball) -> Generator[Tensor, Tensor, float]:
        """DBR-Search, algorithm 2: the radius of the boundary along d if it is below r, else infinity."""

        def at(radius: float) -> Tensor:
            return (x + radius * d).clamp(ball.low, ball.high)[None]

        if not (yield at(r)):
            return float("inf")
        start, end = 0.0, r
        while end - start > self.tol * end:
            middle = (start + end) / 2
            if (yield at(middle)):
                end = middle
            else:
                start = middle
        return end


def _blocks(size: int) -> Iterator[slice]:
    """The blocks to flip, without end: none, all, halves, quarters, ..., single coordinates, again and again."""
    yield slice(0, 0)
    for stage in count():
        length = -(-size // 2**stage)
        yield from (slice(start, min(start + length, size)) for start in range(0, size, length))
