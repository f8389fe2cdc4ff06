"""Attacks that do not see what is judged: on a surrogate of the model, or one perturbation made on other examples.

Their passes are no passes of the model on the examples, so that they are no queries of a black box. A cell's evidence
counts them apart, by the names of OTHER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Attack, Ball, Classifier, Streams
from rlbench.core.knowledge import Knowledge
from rlbench.core.threat import project
from rlbench.engine.attack.one_sensor import OneSensor

OTHER = ("other_forwards", "other_backwards")  # evidence


class Passes(NamedTuple):
    """Forward and backward passes."""

    forwards: int
    backwards: int

    @property
    def cost(self) -> int:
        """In forward passes, of which a backward pass is worth two."""
        return self.forwards + 2 * self.backwards


@dataclass(frozen=True)
class Elsewhere:
    """What an attack runs on, if not on the examples and their classifier.

    Attributes:
        method: the attack, which needs nothing of the classifier.
        seen: the classifier that it sees, of the R examples.
        count: counts the passes so far.
    """

    method: Attack
    seen: ClassifierView
    count: Callable[[], Passes]


@dataclass(frozen=True)
class Transferred:
    """An attack on a surrogate.

    A gradient attack of the pool goes on past the first error: a point that barely misleads one model rarely misleads
    another. What it finds for an example up to its first error is the same.

    Attributes:
        method: the attack.
    """

    method: Any
    needs: ClassVar[Knowledge] = "label"

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x; the classifier is the surrogate."""
        if not moves_jointly(self.method, ball):
            method = OneSensor(self.method) if ball.spans else self.method
            found: Tensor = method(classifier, x, y, ball, streams)
            return found
        search = self.method.search(x, y, ball, streams, lambda: clean_logits(classifier, x))
        search.past = True
        return run_alone(classifier, search)


@dataclass(frozen=True)
class Universal:
    """One perturbation for all examples.

    Attributes:
        make: makes it, (*shape).
    """

    make: Callable[[], Tensor]
    needs: ClassVar[Knowledge] = "label"

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box -> x_adv like x, in the balls and the box."""
        return project(x + self.make().to(x), x, ball)


def moves_jointly(method: object, ball: Ball) -> bool:
    """Whether an attack is one of the pool, which moves several sensors at once."""
    return hasattr(method, "search") and not (ball.spans and getattr(method, "leaves_ball", False))


def count_elsewhere(found: Iterable[Elsewhere | None]) -> dict[str, int]:
    """The evidence of such attacks; nothing if there are none."""
    counts = [one.count() for one in found if one is not None]
    return dict(zip(OTHER, map(sum, zip(*counts, strict=True)), strict=True)) if counts else {}


def passes_elsewhere(evidence: Mapping[str, int]) -> Passes:
    """The passes that `count_elsewhere` counted."""
    return Passes(*(evidence.get(name, 0) for name in OTHER))
