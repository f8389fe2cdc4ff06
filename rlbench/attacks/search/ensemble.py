"""Attacks one after the other, each on the examples that the ones before have not broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from rlbench.attacks.search.candidates import Best, Subset
from rlbench.core import Attack, Ball, Classifier, Streams


class Member(Attack, Protocol):
    """An attack that says what it does at most, and to which loss."""

    def passes(self, n_classes: int) -> tuple[int, int]: ...

    def loss_used(self, n_classes: int) -> str: ...


def cascade(
    attacks: Mapping[str, Member], classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams
) -> Tensor:
    """The worst case per example over attacks, at the cost that its survivors make.

    Args:
        attacks: by name, which is the name of each one's random streams; in this order.
        x: (B, *shape) in the box; y: (B,) int64.

    Returns:
        x_adv like x: per example the answer of the smallest margin.
    """
    best = Best(classifier, x, y)
    for name, attack in attacks.items():
        rows = best.rows
        if not len(rows) or ball.radius == 0:
            break
        own = streams.child(name).take(rows.tolist())
        best.offer(rows, attack(Subset(classifier, rows), x[rows], y[rows], ball, own))
    return best.x_adv


def passes(attacks: Mapping[str, Member], n_classes: int) -> tuple[int, int]:
    """The most forward and backward passes of an example, with the one that judges each attack."""
    each = [attack.passes(n_classes) for attack in attacks.values()]
    return sum(f for f, _ in each) + len(each), sum(b for _, b in each)


def loss_used(attacks: Mapping[str, Member], n_classes: int) -> str:
    """The losses in the attacks' order, such as "ce+margin-targeted"."""
    return "+".join(attack.loss_used(n_classes) for attack in attacks.values())
