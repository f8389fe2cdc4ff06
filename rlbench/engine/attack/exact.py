"""Search in low precision, judge in float32: what such a search claims is confirmed, and what it misses is tried again.

A search in TF32 or bfloat16 sees logits that are off by about 0.1 or 1 percent. Its errors are closed in two ways:

- a hit counts only if it is one in float32: `Confirmed` answers with float32 logits wherever the low-precision ones are
  of another class. So a search does not stop at a hit that is none, but goes on from that point;
- an example that survives is searched again in float32, from the point that was found, by a short run of the attack
  `adaptive`. How many of them it broke is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.attacks.adaptive import LAST, AdaptiveSearch
from rlbench.attacks.search.pool import clean_logits
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.knowledge import needs_of
from rlbench.core.machine import full_float32
from rlbench.core.precision import Precision
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import norms_of
from rlbench.encoders.heads import ZeroShot

AGAIN, BROKE = "searched_again", "broke_again"  # evidence: examples of the last search, and those that it broke


@dataclass(frozen=True)
class Confirmed:
    """A classifier in low precision, with the float32 logits of what it misclassifies.

    Attributes:
        low: the classifier in low precision.
        exact: the same in float32; it counts its passes.
        y: (N,) int64 the labels of all its examples.
    """

    low: Classifier
    exact: Classifier
    y: Tensor

    @property
    def batch_size(self) -> int:
        return self.low.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) logits with the gradient of the low-precision ones."""
        rows = torch.arange(len(x)) if rows is None else rows
        logits = self.low(x, rows=rows)
        claimed = ~(margin(logits.detach(), self.y[rows.to(self.y.device)]) > 0)
        at = claimed.nonzero()[:, 0]
        if not len(at):
            return logits
        with torch.no_grad(), full_float32():
            found = self.exact(x.detach()[at], rows=rows[at.to(rows.device)])
        confirmed = logits.detach().index_copy(0, at, found.to(logits))
        return torch.where(claimed[:, None], confirmed + (logits - logits.detach()), logits)


def lower(classify: Callable[[Tensor], Tensor], precision: Precision) -> Callable[[Tensor], Tensor]:
    """A classifier in lower precision, (B, *shape) -> (B, C) float32 logits.

    For TF32, the search itself has to run in `search_float32`, since its backward passes do, too.
    """
    if isinstance(classify, ZeroShot):
        return classify.in_precision(precision)

    def classify_low(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return classify(x).float()

    return classify_low


def is_searched_again(attack: object, norm: Norm) -> bool:
    """Whether survivors of an attack get the last search, which needs gradients and treats each by itself.

    Not those of an attack that needs no gradients, or that has one perturbation for all.
    """
    alone = needs_of(attack) == "white-box" and not getattr(attack, "universal", False)
    return alone and norm in norms_of(LAST)


def begin_again(
    classifier: Classifier, points: Tensor, x: Tensor, y: Tensor, ball: Ball, streams: Streams
) -> AdaptiveSearch:
    """The last search of some examples.

    Args:
        classifier: the classifier in float32.
        points: (B, *shape) in the balls, where the search begins.
        x: (B, *shape) the examples.
        y: (B,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.
    """
    own = streams.child("last search")
    search = LAST.search(x, y, ball, own, lambda: clean_logits(classifier, x))
    search.resume(points, clean_logits(classifier, points))
    return search
