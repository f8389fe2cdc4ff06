"""A short attack with few passes: it chooses targets by the logits so far, and gives up hopeless examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD, surface
from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.losses import LOSSES, substitute
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.state import JobPoints
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.stats.metrics import margin

CE = 2  # the turn of the first run: plain steps come before it, targeted runs after it


@register("attack", "adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Short runs of Auto-PGD, each from the best point so far towards the class that is nearest there.

    Two steps of the largest length come first; they break most examples that are not robust at all (Goodfellow et al.,
    2015, https://arxiv.org/abs/1412.6572). The first run ascends the cross-entropy from a random start; then each run
    ascends the targeted DLR of the untried class with the largest logit at the best point so far. An example ends when
    it is broken, or when its smallest margin m after the first or a later run is more than `hopeless` times the fall of
    the margin, m_clean - m: on a nearly linear loss, a few more steps do not double the fall. An example whose margin
    has not fallen at all is not given up there, since masked gradients look like that. The few examples that survive
    all targets with m at most `near` times the fall get `again` more targeted runs, as long as the first one. Liu et
    al., 2022 (https://arxiv.org/abs/2203.05154) discard hard examples early, but return to them; the runs are those of
    Croce & Hein, 2020 (https://arxiv.org/abs/2003.01690). The combination is rlbench's own. It is a fast protocol, not
    a replacement for apgd-ce and apgd-t; benchmarks/adaptive.md compares their robust accuracy.

    Attributes:
        steps: iterations of the first run.
        targeted: iterations of each targeted run, at most `steps`; most examples that break do so early.
        targets: the largest number of classes tried.
        hopeless: the ratio above; a larger value is more careful and slower.
        near: the ratio of the examples that get more runs.
        again: the largest number of these runs.
    """

    steps: int = 25
    targeted: int = 12
    targets: int = 9
    hopeless: float = 1.0
    near: float = 0.1
    again: int = 9
    min_classes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("targeted", self.targeted), ("targets", self.targets)):
            if value < 1:
                raise FieldError(f"adaptive: {name} is {value}; it must be at least 1")
        if not self.hopeless > 0:
            raise FieldError(f"adaptive: hopeless is {self.hopeless}; it must be above 0")
        for name, least in (("near", self.near), ("again", self.again)):
            if not least >= 0:
                raise FieldError(f"adaptive: {name} is {least}; it must be at least 0")

    def loss_used(self, n_classes: int) -> str:
        """The names of the losses that are ascended with this number of classes."""
        return f"ce, {substitute('dlr-targeted', n_classes)}"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        runs, short = min(self.targets, n_classes - 1), min(self.targeted, self.steps)
        more = min(self.again, n_classes - 1)
        backwards = CE + self.steps + runs * short + more * self.steps
        return 1 + backwards + CE + 1 + runs + more, backwards

    def usual_passes(self, n_classes: int) -> tuple[int, int]:
        """Forward and backward passes of an example that survives all short runs; few get a later run."""
        runs, short = min(self.targets, n_classes - 1), min(self.targeted, self.steps)
        backwards = CE + self.steps + runs * short
        return 1 + backwards + CE + 1 + runs, backwards

    def search(
        self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]
    ) -> AdaptiveSearch:
        """The attack's jobs, for the pool."""
        clean = logits()
        runs, more = (min(n, clean.shape[1] - 1) for n in (self.targets, self.again))
        jobs = ["step 0", "step 1", *(f"run {run}" for run in range(1 + runs + more))]
        return AdaptiveSearch(
            x=x,
            y=y,
            ball=ball,
            streams=streams,
            rule=APGD(name="apgd-t", steps=self.steps),
            loss="dlr-targeted",
            start=surface,
            jobs=jobs,
            targets=y[:, None].repeat(1, len(jobs)),
            clean=clean,
            targeted=self.targeted,
            hopeless=self.hopeless,
            last=CE + runs,
            near_ratio=self.near,
        )

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


@dataclass(kw_only=True, eq=False)
class AdaptiveSearch(Search):
    """Plain steps, then one run after another; each starts from what the earlier ones found.

    Attributes:
        clean: (N, C) logits of x.
        targeted: iterations of each targeted run.
        hopeless: the ratio at which an example is given up, see `Adaptive`.
        last: the turn of the last short run.
        near_ratio: the ratio at which an example gets more runs after that, see `Adaptive`.
        near: (N, C) logits of the best points.
        tried: (N, C) bool, the true class and the targets so far.
    """

    clean: Tensor
    targeted: int
    hopeless: float
    last: int
    near_ratio: float
    near: Tensor = field(init=False)
    tried: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.near = self.clean.clone()
        self.tried = torch.zeros_like(self.clean, dtype=torch.bool).scatter(1, self.y[:, None], True)
        self.clean_margin = margin(self.clean, self.y).float().cpu()

    def resume(self, points: Tensor, logits: Tensor) -> None:
        """Begins at points (N, *shape) that another search found, with their logits (N, C), in place of x."""
        self.best, self.near = points.clone(), logits.clone()
        self.best_margin = margin(logits, self.y).cpu().double()

    def admit(self, room: int, *, alongside: bool) -> int:
        """Begins jobs, never two of an example at a time."""
        return 0 if alongside else super().admit(room, alongside=False)

    def begin(self, rows: Tensor, turn: int) -> None:
        """Starts jobs; a targeted run takes the nearest class that has not been tried."""
        if turn > CE:
            at = rows.to(self.x.device)
            self.targets[at, turn] = self.choose_targets(at, turn)
        super().begin(rows, turn)

    def choose_targets(self, rows: Tensor, turn: int) -> Tensor:
        """(K,) the nearest classes that these examples have not tried; the later runs try all once more."""
        if turn == self.last + 1:
            self.tried[rows] = self.y[rows, None] == torch.arange(self.near.shape[1], device=rows.device)
        target = self.near[rows].masked_fill(self.tried[rows], float("-inf")).argmax(1)
        self.tried[rows, target] = True
        return target

    def draw_start(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) a random start for the first run, and the best point, initially x, for all other jobs."""
        return super().draw_start(rows, turn) if turn == CE else self.best[rows]

    def is_finished(self) -> Tensor:
        """(B,) bool, the running jobs that took their last gradient."""
        jobs = self._jobs()
        short = (jobs.turn > CE) & (jobs.turn <= self.last) & (jobs.steps == self.targeted)
        return super().is_finished() | (jobs.turn < CE) | short

    def adversary_loss(self, logits: Tensor) -> Tensor:
        """(B,) cross-entropy in the steps and the first run, then the targeted loss."""
        jobs = self._jobs()
        ce = LOSSES["ce"](logits, jobs.y, jobs.y)
        return torch.where(jobs.turn <= CE, ce, super().adversary_loss(logits))

    def record(self, points: JobPoints, logits: Tensor) -> Tensor:
        """Keeps the logits of the best points, too."""
        better = super().record(points, logits)
        self.near[points.example[better].to(self.x.device)] = logits[better]
        return better

    def settle(self, logits: Tensor) -> None:
        """Ends runs, and gives up the examples that are hopeless."""
        assert self.parked is not None
        runs = (self.parked.turn >= CE).cpu()
        examples, turn = self.parked.example[runs], self.parked.turn.cpu()[runs]
        super().settle(logits)
        self.left[examples[self.is_hopeless(examples, turn)]] = 0

    def is_hopeless(self, examples: Tensor, turn: Tensor) -> Tensor:
        """(K,) bool, the examples that are given up after their runs of these turns (K,)."""
        m = self.best_margin[examples].float()
        fall = self.clean_margin[examples] - m
        return torch.where(turn < self.last, (fall > 0) & (m > self.hopeless * fall), m > self.near_ratio * fall)


LAST = Adaptive()  # the short search in float32 of what survives one in lower precision
