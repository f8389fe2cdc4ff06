"""The zero-shot protocol of RobustVLM: APGD-CE with restarts, then targeted APGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD
from rlbench.attacks.search.ensemble import Member, cascade, loss_used, passes
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.registry import register


@register("attack", "aa-clip")
@dataclass(frozen=True, kw_only=True)
class AAClip:
    """APGD-CE with 5 restarts of 100 steps, then APGD with 9 targets on the examples that are still correct.

    Schlarmann et al., 2024, https://arxiv.org/abs/2402.12336, section 4 and code: Linf, 2/255 and 4/255, 1000 examples.
    With 2 classes only APGD-CE runs; with 3, `loss_used` tells which loss replaces DLR. The attack has no fields, so
    its name alone identifies the protocol.
    """

    min_classes: ClassVar[int] = 2

    @staticmethod
    def members(n_classes: int) -> dict[str, Member]:
        """The attacks by name, in the order in which they run."""
        first: dict[str, Member] = {"apgd-ce": APGD(name="apgd-ce", restarts=5)}
        return first if n_classes == 2 else first | {"apgd-t": APGD(name="apgd-t")}

    def label(self, n_classes: int) -> str:
        """The name of the protocol for records."""
        return "aa-clip"

    def loss_used(self, n_classes: int) -> str:
        """The losses of the members with this number of classes."""
        return loss_used(self.members(n_classes), n_classes)

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        forwards, backwards = passes(self.members(n_classes), n_classes)
        return forwards + 1, backwards

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        if not len(x) or ball.radius == 0:
            return x
        with torch.no_grad():
            n_classes = classifier(x[:1], rows=torch.zeros(1, dtype=torch.int64)).shape[1]
        return cascade(self.members(n_classes), classifier, x, y, ball, streams)
