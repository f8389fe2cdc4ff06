"""An adversarial patch: free values in one window of the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, prod
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.square_windows import place, window
from rlbench.attacks.search.state import Jobs, Rowwise
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import per_row


@dataclass(eq=False)
class Memory(Rowwise):
    """What the attack remembers of each of B jobs.

    Attributes:
        patch: (B, *shape) bool, the coordinates that may change.
    """

    patch: Tensor


@register("attack", "patch")
@dataclass(frozen=True, kw_only=True)
class Patch:
    """Signed gradient steps in a window at a random place; the best of several places.

    Brown et al., 2017, https://arxiv.org/abs/1712.09665, but per example and digital: the attacker chooses the place,
    so there is no expectation over places. eps counts pixels or bins, so that the patch is a point of the L0 ball and
    a worst case may include it: 2% of 64 x 64 pixels are 82. The window has the proportions of the box, in clips also
    in time. Compared with the closed form of affine classifiers.

    Attributes:
        steps: gradient steps of a run; their length falls from half the box to a hundredth of that.
        places: runs from fresh random places.
    """

    steps: int = 50
    places: int = 5
    norms: ClassVar[frozenset[Norm]] = frozenset({"l0"})
    min_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("places", self.places)):
            if value < 1:
                raise FieldError(f"patch: {name} is {value}; it must be at least 1")

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended."""
        return "margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example; a run's last point has no gradient."""
        return self.places * (self.steps + 1), self.places * self.steps

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> Memory:
        """The memory of new jobs, whose first points x_adv differ from x in the whole patch."""
        return Memory(x_adv != x)

    def advance(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """One step inside the patch and the box."""
        cosine = (1 + (pi * jobs.steps / self.steps).cos().to(gradient)) / 2
        step = 0.5 * (ball.high - ball.low) * (0.01 + 0.99 * cosine)
        stepped = jobs.x_adv + per_row(step, gradient) * gradient.sign()
        jobs.x_adv = stepped.clamp(ball.low, ball.high).where(jobs.memory.patch, jobs.x)

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> Search:
        """The attack's jobs, for the pool."""
        jobs = [f"place {k}" for k in range(self.places)]
        return Search(
            x=x,
            y=y,
            ball=ball,
            streams=streams,
            rule=self,
            loss="margin",
            start=put_patch,
            jobs=jobs,
            targets=y[:, None].expand(-1, len(jobs)),
        )

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


def sides(k: int, sizes: tuple[int, ...]) -> list[int]:
    """The lengths of a window of at most k positions, with the proportions of the box where they fit."""
    share = min(1.0, k / prod(sizes)) ** (1 / len(sizes))
    lengths = [max(1, int(share * n + 1e-9)) for n in sizes]
    while prod(lengths) > k:
        lengths[lengths.index(max(lengths))] -= 1
    for axis, n in enumerate(sizes):
        rest = prod(lengths) // lengths[axis]
        lengths[axis] = min(n, k // rest)
    return lengths


def put_patch(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """x (B, *shape) with a window at a random place, of random values in the other half of the box."""
    sizes = tuple(x.shape[1:]) if x.dim() == 2 else tuple(x.shape[2:])
    lengths = torch.tensor(sides(int(ball.radius), sizes), device=x.device).expand(len(x), -1)
    u = (streams.child("place").uniform((len(sizes),)).to(x) + 1) / 2
    patch = window(place(u, lengths, sizes), lengths, sizes).view(len(x), *[1] * (x.dim() - 1 - len(sizes)), *sizes)
    middle, half = (ball.low + ball.high) / 2, (ball.high - ball.low) / 2
    away = half * (1 - (streams.uniform(tuple(x.shape[1:])).to(x) + 1) / 2)  # in (0, half]
    value = torch.where(x > middle, middle - away, middle + away).clamp(ball.low, ball.high)
    return value.where(patch, x)
