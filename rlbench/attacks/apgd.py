"""Auto-PGD: adaptive step sizes, momentum, and a memory of the best point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.losses import MIN_CLASSES, LossName, substitute
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.rules import Start, direction, project_jobs
from rlbench.attacks.search.state import Jobs, Rowwise
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import by_factor, per_row, project, rows_norm

MOMENTUM = 0.75
LOSS: dict[str, LossName] = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-pm": "pm", "apgd-t": "dlr-targeted"}


@cache
def checkpoints(steps: int) -> Tensor:
    """The checkpoints of n steps: an interval of 0.22 n steps, then each 0.03 n shorter, but at least 0.06 n.

    Returns:
        (steps + 1,) int64: at i, the length of the interval that ends after step i, or 0.
    """
    length, shrink, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    table = torch.zeros(steps + 1, dtype=torch.int64)
    i = length
    while i <= steps:
        table[i] = length
        length = max(length - shrink, shortest)
        i += length
    return table


def surface(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """A random start of norm eps: uniform (Linf) or normal (L2) noise, scaled, then clamped to the box."""
    noise = (streams.uniform if ball.norm == "linf" else streams.normal)(tuple(x.shape[1:])).to(x)
    scaled = by_factor(_scale, ball, noise) if ball.spans else _scale(ball, noise)
    return project(x + scaled, x, ball)


def _scale(ball: Ball, noise: Tensor) -> Tensor:
    """Noise (B, ...) scaled to the radius."""
    return noise * per_row(ball.radius / rows_norm(noise, ball.norm).clamp_min(1e-20), noise)


@dataclass(eq=False)
class Memory(Rowwise):
    """What Auto-PGD remembers of each of B jobs.

    Attributes:
        x_old: (B, *shape) the point before the last step.
        x_best: (B, *shape) the point with the largest loss so far.
        gradient_best: (B, *shape) the gradient at x_best.
        loss_best: (B,) the loss at x_best.
        loss_old: (B,) the loss at the last point.
        loss_check: (B,) `loss_best` at the last checkpoint.
        ascents: (B,) steps of the current interval that raised the loss.
        halved: (B,) bool, whether the step was halved at the last checkpoint.
        step: (B,) length of a step, in box units.
    """

    x_old: Tensor
    x_best: Tensor
    gradient_best: Tensor
    loss_best: Tensor
    loss_old: Tensor
    loss_check: Tensor
    ascents: Tensor
    halved: Tensor
    step: Tensor


@register("attack", "apgd-ce", "apgd-dlr", "apgd-pm", "apgd-t")
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD on the cross-entropy, DLR, probability margin or targeted DLR loss.

    Croce & Hein, 2020, https://arxiv.org/abs/2003.01690; compared with pyautoattack from equal starts. As in the
    original code, and unlike the paper, the first step counts as an ascent if its loss is above 0, whatever the loss at
    the start. Below 3 classes (targeted: 4), where DLR and the probability margin are not defined, the margin replaces
    them: `loss_used`.

    Attributes:
        name: "apgd-ce", "apgd-dlr", "apgd-pm" or "apgd-t".
        steps: iterations of a run.
        restarts: runs from fresh random starts, per target.
        targets: apgd-t's number of targets: the wrong classes with the largest clean logits.
        rho: the step is halved unless this share of an interval's steps raised the loss.
    """

    name: Literal["apgd-ce", "apgd-dlr", "apgd-pm", "apgd-t"] = "apgd-ce"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    rho: float = 0.75

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("restarts", self.restarts), ("targets", self.targets)):
            if value < 1:
                raise FieldError(f"{self.name}: {name} is {value}; it must be at least 1")
        if not 0 < self.rho < 1:
            raise FieldError(f"{self.name}: rho is {self.rho}; it must be between 0 and 1")

    @property
    def min_classes(self) -> int:
        """The fewest classes for which the attack is defined as published."""
        return MIN_CLASSES[LOSS[self.name]]

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended with this number of classes."""
        return substitute(LOSS[self.name], n_classes)

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example; a run's last point has no gradient."""
        targeted = self.name == "apgd-t"
        jobs = self.restarts * (min(self.targets, n_classes - 1) if targeted else 1)
        return jobs * (self.steps + 1) + targeted, jobs * self.steps

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> Memory:
        """The memory of new jobs that start at x_adv."""
        zero = x.new_zeros(len(x))
        return Memory(
            x_old=x_adv,
            x_best=x_adv,
            gradient_best=torch.zeros_like(x),
            loss_best=zero - float("inf"),
            loss_old=zero,
            loss_check=zero,
            ascents=zero,
            halved=torch.ones_like(zero, dtype=torch.bool),
            step=zero + 2 * ball.radius,
        )

    def advance(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Algorithm 1: remembers the best point, halves the step at a checkpoint, and steps with momentum."""
        gradient = self.remember(jobs, loss, gradient)
        self._move(jobs, gradient, jobs.steps == 0, ball)

    def remember(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor) -> Tensor:
        """Updates the memory; a job whose step is halved returns to its best point. Returns the gradients there."""
        m, first = jobs.memory, jobs.steps == 0
        better = loss > m.loss_best
        m.loss_best = torch.where(better, loss, m.loss_best)
        m.x_best = torch.where(per_row(better, gradient), jobs.x_adv, m.x_best)
        m.gradient_best = torch.where(per_row(better, gradient), gradient, m.gradient_best)
        m.ascents = m.ascents + ((loss > m.loss_old) & ~first)
        # The original compares the first step with 0, which every cross-entropy exceeds; ce here is its logarithm.
        m.loss_old = torch.where(first, float("-inf") if self.name == "apgd-ce" else 0.0, loss)
        m.loss_check = torch.where(first, loss, m.loss_check)
        halve = self._checkpoint(m, self.intervals(jobs))
        if halve.any():
            rows = per_row(halve, gradient)
            jobs.x_adv = torch.where(rows, m.x_best, jobs.x_adv)
            gradient = torch.where(rows, m.gradient_best, gradient)
        return gradient

    def intervals(self, jobs: Jobs[Memory]) -> Tensor:
        """(B,) int64 the length of the interval that ends after this step of a job, or 0."""
        return checkpoints(self.steps).to(jobs.steps.device)[jobs.steps]

    def _checkpoint(self, m: Memory, length: Tensor) -> Tensor:
        """(B,) bool, the jobs that halve their step: too few ascents, or no better point since the last checkpoint."""
        check = length > 0
        if not check.any():
            return check
        stalled = ~m.halved & (m.loss_check >= m.loss_best)
        halve = check & ((m.ascents <= self.rho * length) | stalled)
        m.step = torch.where(halve, m.step / 2, m.step)
        m.halved = torch.where(check, halve, m.halved)
        m.loss_check = torch.where(check, m.loss_best, m.loss_check)
        m.ascents = torch.where(check, 0.0, m.ascents)
        return halve

    def _move(self, jobs: Jobs[Memory], gradient: Tensor, first: Tensor, ball: Ball) -> None:
        x_adv, m = jobs.x_adv, jobs.memory
        z = project_jobs(x_adv + per_row(m.step, x_adv) * direction(gradient, ball), jobs, ball)
        a = per_row(torch.where(first, 1.0, MOMENTUM), x_adv)
        jobs.x_adv = project_jobs(torch.lerp(x_adv, z, a).addcmul_(1 - a, x_adv - m.x_old), jobs, ball)
        m.x_old = x_adv

    def search(
        self,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        streams: Streams,
        logits: Callable[[], Tensor],
        *,
        start: Start = surface,
        targets: Tensor | None = None,
    ) -> Search:
        """The attack's jobs, for the pool; `start` gives each run's first point, `targets` (N, T) those of apgd-t."""
        jobs, classes = self._jobs(y, logits, targets) if ball.radius > 0 else ([], y[:, None])
        return Search(
            x=x,
            y=y,
            ball=ball,
            streams=streams,
            rule=self,
            loss=LOSS[self.name],
            start=start,
            jobs=jobs,
            targets=classes,
        )

    def __call__(
        self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams, *, start: Start = surface
    ) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x), start=start))

    def _jobs(self, y: Tensor, logits: Callable[[], Tensor], ranked: Tensor | None) -> tuple[list[str], Tensor]:
        runs = [f"restart {r}" for r in range(self.restarts)]
        if self.name != "apgd-t":
            return runs, y[:, None].expand(-1, len(runs))
        if ranked is None:
            others = logits().scatter(1, y[:, None], float("-inf"))
            ranked = others.topk(min(self.targets, others.shape[1] - 1), dim=1).indices
        jobs = [f"target {t}/{run}" for t in range(ranked.shape[1]) for run in runs]
        return jobs, ranked.repeat_interleave(len(runs), dim=1)
