"""Random noise in the ball: the weakest attack, which every other attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from rlbench.attacks.search.incumbents import Incumbents
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.core.threat import per_row, project, rows_norm, sample


@register("attack", "noise")
@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """Random points of the ball; keeps the one with the smallest margin.

    A defence that noise breaks more often than a gradient attack masks its gradients (Carlini et al., 2019,
    https://arxiv.org/abs/1902.06705, section 4.4).

    Attributes:
        points: number of random points.
        where: "ball": uniform in it; "surface": a uniform corner of the cube (Linf) or point of the sphere (L2).
    """

    points: int = 100
    where: Literal["ball", "surface"] = "ball"
    min_classes: ClassVar[int] = 2
    needs: ClassVar[Knowledge] = "label"

    def __post_init__(self) -> None:
        if self.points < 1:
            raise FieldError(f"noise: points is {self.points}; it must be at least 1")

    def loss_used(self, n_classes: int) -> str:
        """The function that ranks points."""
        return "margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        return self.points, 0

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        best, draw = Incumbents(classifier, x, y), sample if self.where == "ball" else surface
        for i in range(self.points if ball.radius > 0 else 0):
            rows = best.rows
            if not len(rows):
                break
            best.offer(rows, draw(x[rows], ball, streams.child(f"point {i}").take(rows.tolist())))
        return best.x_adv


def surface(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """A uniform corner of the cube (Linf) or point of the sphere (L2), clamped to the box."""
    if ball.norm == "linf":
        delta = ball.radius * (2 * (streams.uniform(tuple(x.shape[1:])).to(x) >= 0) - 1)
    else:
        delta = streams.normal(tuple(x.shape[1:])).to(x)
        delta = delta * per_row(ball.radius / rows_norm(delta, "l2").clamp_min(1e-20), x)
    return project(x + delta, x, ball)
