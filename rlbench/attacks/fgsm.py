"""The fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from rlbench.attacks.pgd import PGD
from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.registry import register


@register("attack", "fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One gradient step of length eps from the clean input.

    Goodfellow et al., 2015, https://arxiv.org/abs/1412.6572; the L2 form steps along the normalised gradient.

    Attributes:
        loss: "ce" or "margin".
    """

    loss: Literal["ce", "margin"] = "ce"
    min_classes: ClassVar[int] = 2

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended with this number of classes."""
        return self.loss

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> Search:
        """The attack's jobs, for the pool."""
        one_step = PGD(steps=1, rel_step=1.0, loss=self.loss)
        return one_step.search(x, y, ball, streams, logits, start=lambda x, ball, streams: x)

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))
