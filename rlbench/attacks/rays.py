"""RayS: the nearest decision boundary along rays to the corners of a cube, by labels alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.decisions import Nearest, Search, inside, run_searches
from rlbench.attacks.search.normals import estimate_normal, expect_cosine
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.core.seeds import generator

NORMAL = 200  # the most queries of a normal where a search begins again
NEAR = 0.01  # their distance from the boundary, as a share of that to the example
FINEST = 1e-4  # relative precision of a radius: below it, float32 can't tell points apart


@register("attack", "rays")
@dataclass(frozen=True, kw_only=True)
class RayS:
    """RayS: searches the sign vector along which the boundary is nearest; needs labels only.

    Chen & Gu, 2020, https://arxiv.org/abs/2006.12792, algorithms 1 to 3. It flips blocks of the sign vector, from the
    whole input down to single coordinates. A flip is kept if it brings the boundary nearer: one query tells that it
    does not, and a binary search finds the new radius. A search ends once its radius is at most eps. Different from the
    paper: where no boundary lies along the first sign vector, others are tried; after the stage of single coordinates,
    that stage repeats; the binary search begins near the old radius and is as precise as a flip requires. Where no
    single flip helps any more, a search begins again, of single coordinates, at the signs of a normal of the boundary
    elsewhere (see `normals`), unless that is not expected to come nearer. All examples share the fixed random numbers.

    Attributes:
        queries: the most forward passes of an example.
        tol: the coarsest relative precision of a radius.
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
        """Algorithm 3, then searches from other starts, without end."""
        numbers, size = generator("rays"), x.numel()
        starts, b = _starts(x, numbers), min(size, NORMAL)
        d, r = yield from self._begin(x, starts, ball)
        best = yield from self._flip(x, d, r, _blocks(size), ball)
        while True:
            d, r = yield from self._begin(x, starts, ball)
            x_t = (x + r * d).clamp(ball.low, ball.high)
            v = yield from estimate_normal(x_t, NEAR * float((x_t - x).norm()), b, ball=ball, numbers=numbers)
            d = torch.where(v < 0, -1.0, 1.0)
            r = yield from self._radius(x, d, ball.high - ball.low, self.tol, ball)
            if r * expect_cosine(b, size) < best:
                best = min(best, (yield from self._flip(x, d, r, _blocks(size, single=True), ball)))

    def _begin(
        self, x: Tensor, starts: Iterator[Tensor], ball: Ball
    ) -> Generator[Tensor, Tensor, tuple[Tensor, float]]:
        """The first sign vector with a boundary along it, and the radius."""
        for d in starts:
            r = yield from self._radius(x, d, ball.high - ball.low, self.tol, ball)
            if r < float("inf"):
                break
        return d, r

    def _flip(
        self, x: Tensor, d: Tensor, r: float, blocks: Iterator[slice], ball: Ball
    ) -> Generator[Tensor, Tensor, float]:
        """Flips blocks of d, the best sign vector, of radius r, until no single flip helps. Returns the radius."""
        failed = 0  # flips of single coordinates since the last success
        for block in blocks:
            d_new, length = d.clone(), block.stop - block.start
            d_new.view(-1)[block] *= -1
            r_new = yield from self._radius(x, d_new, r, self._precision(length / x.numel()), ball)
            failed = failed + 1 if length == 1 else 0
            if r_new < r:
                d, r, failed = d_new, r_new, 0
            if failed == x.numel():
                break
        return r

    def _precision(self, share: float) -> float:
        """Of the radius after a flip of a share of the coordinates, which changes it by about this share."""
        return min(self.tol, max(share / 4, FINEST))

    def _radius(self, x: Tensor, d: Tensor, r: float, tol: float, ball: Ball) -> Generator[Tensor, Tensor, float]:
        """DBR-Search, algorithm 2: the radius of the boundary along d if it is below r, else infinity."""

        def at(radius: float) -> Tensor:
            return (x + radius * d).clamp(ball.low, ball.high)[None]

        if not (yield at(r)):
            return float("inf")
        end, step = r, 8 * tol * r
        while end > step and (yield at(end - step)):
            end, step = end - step, 2 * step
        start = max(end - step, 0.0)
        while end - start > tol * end:
            middle = (start + end) / 2
            if (yield at(middle)):
                end = middle
            else:
                start = middle
        return end


def _starts(x: Tensor, numbers: np.random.Generator) -> Iterator[Tensor]:
    """Sign vectors like x, without end: all +1, all -1, then random ones, also in blocks."""
    yield from (torch.ones_like(x), -torch.ones_like(x))
    size = x.numel()
    for k in count():
        length = 1 if k % 2 == 0 else 1 + int(numbers.integers(size))
        minus = np.repeat(numbers.random(-(-size // length)) < numbers.random(), length)[:size]
        yield torch.from_numpy(np.where(minus, -1.0, 1.0)).to(x).view(x.shape)


def _blocks(size: int, *, single: bool = False) -> Iterator[slice]:
    """The blocks to flip, without end: all, halves, quarters, ..., single coordinates, again and again."""
    for stage in count():
        length = 1 if single else -(-size // 2**stage)
        yield from (slice(start, min(start + length, size)) for start in range(0, size, length))
