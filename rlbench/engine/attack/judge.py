"""Judges every answer of an attack: an attack is never trusted.

Shape, dtype, finite values, box and norm in float64 are checked, then a fresh forward pass decides. A violation or a
crash is an AttackError, so that its cell is failed, never robust.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core import Attack, Ball, Classifier, Streams
from rlbench.core.errors import AttackError, RLBenchError
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import distance, violation


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
