"""Runs attacks and judges the points that they return: an attack is never trusted.

The judge checks the shape, the dtype, that all values are finite, the box and the norm (in float64); then a fresh
forward pass decides. A violation or a crash is an AttackError, so its cell counts as failed, never as robust.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlbench.core import Attack, Ball, Classifier, Streams
from rlbench.core.errors import AttackError, RLBenchError
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import distance, violation
from rlbench.encoders.settings import keep_settings


@dataclass(frozen=True)
class Judgement:
    """The result of a fresh forward pass of x_adv.

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


def judge(classifier: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, ball: Ball) -> Judgement:
    """Checks that points lie in their balls, and classifies them afresh.

    Args:
        classifier: the classifier that was attacked.
        x_adv: (B, *shape) the points to judge.
        x: (B, *shape) the centres of the balls.
        y: (B,) int64 labels.
        ball: the ball around each example.

    Raises:
        AttackError: another shape or dtype, a non-finite value, or a point outside the box or the ball.
        RLBenchError: a label that is not one of the classifier's classes.
    """
    wrong = violation(x_adv, x, ball)
    if wrong is not None:
        raise AttackError(wrong)
    with torch.no_grad():
        logits = classifier(x_adv)
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise RLBenchError(f"label {int(y.max())} is not among the classifier's {logits.shape[1]} classes, 0 on")
    m = margin(logits, y)
    far = distance(x_adv, x, ball.norm, ball.spans)
    return Judgement((m > 0).cpu(), logits.argmax(1).cpu(), m.float().cpu(), far.cpu())


def run_attack(attack: Attack, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """Runs an attack; it gets copies, so that it cannot change x or y, and its settings of torch end with it.

    Args:
        attack: the attack.
        classifier: the classifier to attack.
        x: (B, *shape) examples in the box.
        y: (B,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.

    Returns:
        The points that the attack returned, not judged yet.

    Raises:
        AttackError: the attack or the classifier raised any exception, or the attack returned no tensor.
    """
    try:
        with keep_settings(type(attack).__name__):
            x_adv = attack(classifier, x.clone(), y.clone(), ball, streams)
    except (AttackError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise AttackError(f"{type(attack).__name__} crashed: {type(error).__name__}: {error}") from error
    if not isinstance(x_adv, Tensor):
        raise AttackError(f"{type(attack).__name__} returned {type(x_adv).__name__}; it must return a tensor like x")
    return x_adv.detach()


def check_effort(attack: Attack, x_adv: Tensor, x: Tensor, ball: Ball, passes: Tensor) -> None:
    """Checks that an attack did something: that it tried and found nothing is a result, that it did not try is none.

    Args:
        attack: the attack.
        x_adv: (B, *shape) the points that it returned.
        x: (B, *shape) its examples.
        ball: the ball around each example.
        passes: (B,) int64, the forward passes of each example besides those of the judge.

    Raises: AttackError: it returned its examples, and asked the classifier nothing.
    """
    if len(x) and ball.radius > 0 and not passes.any() and torch.equal(x_adv, x):
        raise AttackError(f"{type(attack).__name__} returned its inputs, and asked the classifier nothing")


class JudgedAttack(NamedTuple):
    """The points x_adv (B, *shape) that an attack returned, and their judgement."""

    x_adv: Tensor
    judgement: Judgement


def attack_and_judge(
    attack: Attack, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams
) -> JudgedAttack:
    """Runs an attack with `run_attack`, and judges its points with `judge`; arguments and errors are theirs."""
    x_adv = run_attack(attack, classifier, x, y, ball, streams)
    return JudgedAttack(x_adv, judge(classifier, x_adv, x, y, ball))
