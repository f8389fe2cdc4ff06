"""Attacks one after another, each on the examples that the earlier ones have not broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from rlbench.attacks.search.incumbents import Incumbents
from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Attack, Ball, Classifier, Streams


class Member(Attack, Protocol):
    """An attack that states its largest number of passes and its loss."""

    def passes(self, n_classes: int) -> tuple[int, int]: ...

    def loss_used(self, n_classes: int) -> str: ...


def cascade(
    attacks: Mapping[str, Member], classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams
) -> Tensor:
    """The worst case per example over attacks; each attacks only the examples that the earlier ones have not broken.

    Args:
        attacks: the attacks by name, in order; the names also name their random streams.
        classifier: the classifier of all examples.
        x: (B, *shape) in the box.
        y: (B,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.

    Returns:
        x_adv like x: per example the point with the smallest margin.
    """
    best = Incumbents(classifier, x, y)
    for name, attack in attacks.items():
        rows = best.rows
        if not len(rows) or ball.radius == 0:
            break
        own = streams.child(name).take(rows.tolist())
        best.offer(rows, attack(ClassifierView(classifier, rows), x[rows], y[rows], ball, own))
    return best.x_adv


def passes(attacks: Mapping[str, Member], n_classes: int) -> tuple[int, int]:
    """The most forward and backward passes of an example, including one per attack to judge its result."""
    each = [attack.passes(n_classes) for attack in attacks.values()]
    return sum(f for f, _ in each) + len(each), sum(b for _, b in each)


def loss_used(attacks: Mapping[str, Member], n_classes: int) -> str:
    """The losses in the attacks' order, such as "ce+margin-targeted"."""
    return "+".join(attack.loss_used(n_classes) for attack in attacks.values())
