"""A short attack that spends its passes where they may pay: targets by what was seen, hopeless examples left early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD, surface
from rlbench.attacks.search.jobs import Search, State
from rlbench.attacks.search.losses import LOSSES, substitute
from rlbench.attacks.search.pool import alone, clean_logits
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.stats.metrics import margin

CE = 2  # the turn of the first run: plain steps come before it, targeted runs after it


@register("attack", "adaptive")
@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Short runs of Auto-PGD, each from the last best point and at the class that is nearest there; hopeless ones end.

    Two steps as long as eps allows come first, which break most of what is not robust at all (Goodfellow et al., 2015,
    https://arxiv.org/abs/1412.6572). The first run ascends the cross-entropy from a random start; then each run ascends
    the targeted DLR of a class that has not been tried, the one with the largest logit at the best point so far. An
    example ends when it is broken, or when its smallest margin m, after the first run or later, is more than `hopeless`
    times the clean margin's fall, m_clean - m: in a loss that bends little, a few more steps do not double a fall. An
    example whose margin has not fallen at all is never given up, since that is what a masked gradient looks like.
    Discarding hard examples early is an idea of Liu et al., 2022 (https://arxiv.org/abs/2203.05154), who bring them
    back; the runs are Croce & Hein's, 2020 (https://arxiv.org/abs/2003.01690). This project's own; its robust accuracy
    beside that of apgd-ce and apgd-t is in benchmarks/adaptive.md. It is a fast protocol, not a replacement for them.

    Attributes:
        steps: iterations of the first run.
        targeted: iterations of each of the others, `steps` at most: what they break, they break soon.
        targets: most classes that are tried.
        hopeless: see above; larger is more careful and slower.
    """

    steps: int = 25
    targeted: int = 12
    targets: int = 9
    hopeless: float = 1.0
    min_classes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("targeted", self.targeted), ("targets", self.targets)):
            if value < 1:
                raise FieldError(f"adaptive: {name} is {value}; it must be at least 1")
        if not self.hopeless > 0:
            raise FieldError(f"adaptive: hopeless is {self.hopeless}; it must be above 0")

    def loss_used(self, n_classes: int) -> str:
        """The names of the losses that are ascended with this number of classes."""
        return f"ce, {substitute('dlr-targeted', n_classes)}"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        runs, short = min(self.targets, n_classes - 1), min(self.targeted, self.steps)
        backwards = CE + self.steps + runs * short
        return 1 + backwards + CE + 1 + runs, backwards

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> Search:
        """Its jobs, for the pool."""
        clean = logits()
        jobs = ["step 0", "step 1", *(f"run {run}" for run in range(1 + min(self.targets, clean.shape[1] - 1)))]
        return _Search(
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
        )

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


@dataclass(kw_only=True, eq=False)
class _Search(Search):
    """Steps, then one run after another, each by what the ones before it found.

    Attributes:
        clean: (N, C) logits of x.
        near: (N, C) logits of the best points; tried: (N, C) bool, the true class and the targets so far.
    """

    clean: Tensor
    targeted: int
    hopeless: float
    near: Tensor = field(init=False)
    tried: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.near = self.clean.clone()
        self.tried = torch.zeros_like(self.clean, dtype=torch.bool).scatter(1, self.y[:, None], True)
        self.clean_margin = margin(self.clean, self.y).float().cpu()

    def admit(self, room: int, *, alongside: bool) -> None:
        """Never two runs of an example at a time."""
        if not alongside:
            super().admit(room, alongside=False)

    def begin(self, rows: Tensor, turn: int) -> None:
        """The targeted runs take the nearest class that has not been tried."""
        if turn > CE:
            at = rows.to(self.x.device)
            target = self.near[at].masked_fill(self.tried[at], float("-inf")).argmax(1)
            self.targets[at, turn] = target
            self.tried[at, target] = True
        super().begin(rows, turn)

    def first(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) the first run starts at random, all else at the best point, which is x at first."""
        return super().first(rows, turn) if turn == CE else self.best[rows]

    def finished(self) -> Tensor:
        """(B,) bool, the slots whose jobs took their last gradient."""
        turn, i = self.slots["turn"], self.slots["i"]
        return super().finished() | (turn < CE) | ((turn > CE) & (i == self.targeted))

    def adversary_loss(self, logits: Tensor) -> Tensor:
        """(B,) cross-entropy in the steps and the first run, then the targeted loss."""
        y = self.slots["y"]
        return torch.where(self.slots["turn"] <= CE, LOSSES["ce"](logits, y, y), super().adversary_loss(logits))

    def record(self, s: State, logits: Tensor) -> Tensor:
        """Keeps the best points' logits, too."""
        better = super().record(s, logits)
        self.near[s["example"][better].to(self.x.device)] = logits[better]
        return better

    def settle(self, logits: Tensor) -> None:
        """Ends runs, and with them the examples that are hopeless."""
        examples = self.parked["example"][(self.parked["turn"] >= CE).cpu()]
        super().settle(logits)
        m = self.best_margin[examples]
        fall = self.clean_margin[examples] - m
        self.left[examples[(fall > 0) & (m > self.hopeless * fall)]] = 0
