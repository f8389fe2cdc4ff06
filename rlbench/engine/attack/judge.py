"""The harness around an attack: counts passes and re-judges every answer.

An attack is never trusted: shape, dtype, finite values, box and norm in float64 are checked, then a fresh
forward pass decides. A violation or a crash is an AttackError, so that its cell is failed, never robust.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rlbench.core import Attack, Ball, Classifier, Streams
from rlbench.core.errors import AttackError, FieldError, RLBenchError
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import distance, violation
from rlbench.engine.soundness.rules import AGAIN, SUMS

CLEAR = 1e-4  # a margin below -CLEAR * max|logit| is an error whatever a batch does to the last bits
GLANCE = 512  # coordinates of a gradient that are looked at first: nearly always one is not 0
PASS = SUMS[: SUMS.index("not_finite")]
ROWS = ("not_finite", "probabilities", "constant")


class Watch:
    """Keeps count of what is strange in the passes and gradients of a run, and changes nothing.

    Attributes:
        counts: (N, 8) of each example, SUMS up to "constant"; broken: (N,) bool, clearly misclassified at some point.
    """

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.counts = torch.zeros(len(y), len(PASS) + len(ROWS), dtype=torch.int32, device=y.device)
        self.broken = torch.zeros(len(y), dtype=torch.bool, device=y.device)

    def see(self, x: Tensor, logits: Tensor, rows: Tensor) -> None:
        """Takes a forward pass of x (B, *shape), the examples `rows`, and its gradient if there will be one."""
        rows = rows.to(self.y.device)
        y, z = self.y[rows], logits.detach()
        m, one = margin(z, y), torch.ones_like(rows, dtype=torch.bool)
        correct, finite = m > 0, z.isfinite().all(1)
        low, high = z.aminmax(dim=1)
        zero = torch.nn.functional.cross_entropy(z, y, reduction="none") == 0
        alike = (low >= 0) & (high <= 1) & ((z.sum(1) - 1).abs() < 1e-3)
        none = torch.zeros_like(one)
        told = (one, correct, correct & zero, none, none, ~finite, alike & (low < high), finite & (low == high))
        self.counts.index_add_(0, rows, torch.stack(told, dim=1).int())
        self.broken[rows[m < -CLEAR * torch.maximum(high, -low)]] = True
        if x.requires_grad:
            x.register_hook(partial(self._gradient, rows=rows, correct=correct))  # type: ignore[no-untyped-call]

    def _gradient(self, gradient: Tensor, *, rows: Tensor, correct: Tensor) -> None:
        flat = gradient.detach().flatten(1)
        zero = flat[:, :GLANCE].abs().amax(1) == 0
        if zero.any():
            zero = flat.abs().amax(1) == 0
        at = PASS.index("gradients")
        self.counts[:, at : at + 2].index_add_(0, rows, torch.stack((correct, correct & zero), dim=1).int())

    def sums(self, correct: Tensor, rows: Tensor | None = None) -> dict[str, int]:
        """SUMS over the examples `rows` (default: all), of which the judge calls `correct` (B,) so."""
        rows = torch.arange(len(self.y)) if rows is None else rows
        at = rows.to(self.y.device)
        names = zip((*PASS, *ROWS), self.counts[at].sum(0).tolist(), strict=True)
        lost = int((self.broken[at].cpu() & correct.cpu()).sum())
        return dict(names) | {"examples": len(rows), "lost": lost, "undefended": 0} | dict.fromkeys(AGAIN, 0)


class Meter:
    """A core.Classifier around any callable (B, ...) -> (B, C): splits large calls and counts passes per example.

    A backward pass counts for every row of the call that it runs through, since the machine has paid for it.

    Attributes:
        forwards, backwards: (N,) int64 passes of each of the n examples.
        watch: what is told of every pass.
    """

    def __init__(
        self,
        classify: Callable[[Tensor], Tensor],
        n: int,
        *,
        batch_size: int = 64,
        on_pass: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        if batch_size < 1:
            raise FieldError(f"batch_size is {batch_size}; it must be at least 1")
        self.classify, self.on_pass, self.watch = classify, on_pass, watch
        self.batch_size = batch_size
        self.forwards = torch.zeros(n, dtype=torch.int64)
        self.backwards = torch.zeros(n, dtype=torch.int64)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) float32 logits; rows (B,): which examples they are, default 0..B-1."""
        rows = torch.arange(len(x)) if rows is None else rows.cpu()
        if len(x) <= self.batch_size:
            return self._call(x, rows)
        parts = [slice(i, i + self.batch_size) for i in range(0, len(x), self.batch_size)]
        return torch.cat([self._call(x[part], rows[part]) for part in parts])

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        x = x.view_as(x) if self.watch else x  # its own hook, where an attack asks for gradients of one leaf twice
        logits = self.classify(x).float()
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            raise RLBenchError(
                f"the classifier made {tuple(logits.shape)} from a batch of {len(x)}; logits are (B, C) with C >= 2"
            )
        one = torch.ones_like(rows)
        self.forwards.index_add_(0, rows, one)
        if logits.requires_grad:

            def count(gradient: Tensor) -> None:
                self.backwards.index_add_(0, rows, one)

            logits.register_hook(count)  # type: ignore[no-untyped-call]  # torch's own gap
        if self.watch is not None:
            self.watch.see(x, logits, rows)
        if self.on_pass is not None:
            self.on_pass(len(x))
        return logits


@dataclass(frozen=True)
class Verdict:
    """What a fresh forward pass says of x_adv.

    Attributes:
        correct: (B,) bool, margin > 0; a tie or a NaN is an error.
        prediction: (B,) int64.
        margin: (B,) float32, z_y - max_{j != y} z_j.
        distance: (B,) float64 norm of x_adv - x, in box units.
    """

    correct: Tensor
    prediction: Tensor
    margin: Tensor
    distance: Tensor


def judge(classifier: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, ball: Ball) -> Verdict:
    """Checks that x_adv (B, *shape) lies in the balls about x, and classifies it afresh.

    Raises:
        AttackError: another shape or dtype, a value that is not finite, outside the box or the ball.
        RLBenchError: a label that is no class of the classifier.
    """
    wrong = violation(x_adv, x, ball)
    if wrong is not None:
        raise AttackError(wrong)
    with torch.no_grad():
        logits = classifier(x_adv)
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise RLBenchError(f"label {int(y.max())} is not among the classifier's {logits.shape[1]} classes, 0 on")
    m = margin(logits, y)
    return Verdict((m > 0).cpu(), logits.argmax(1).cpu(), m.float().cpu(), distance(x_adv, x, ball.norm).cpu())


def run_attack(attack: Attack, meter: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """The attack's answer, not yet judged; the attack gets copies, so that it can't change x or y.

    Raises:
        AttackError: whatever exception the attack or the classifier raised, or an answer that is no tensor.
    """
    try:
        x_adv = attack(meter, x.clone(), y.clone(), ball, streams)
    except AttackError:
        raise
    except Exception as error:
        raise AttackError(f"{type(attack).__name__} crashed: {type(error).__name__}: {error}") from error
    if not isinstance(x_adv, Tensor):
        raise AttackError(f"{type(attack).__name__} returned {type(x_adv).__name__}; it must return a tensor like x")
    return x_adv.detach()


@dataclass(frozen=True)
class Part:
    """A classifier seen by an attack on some of its examples."""

    meter: Classifier
    examples: Tensor

    @property
    def batch_size(self) -> int:
        return self.meter.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.meter(x, self.examples if rows is None else self.examples[rows.cpu()])
