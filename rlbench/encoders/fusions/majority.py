"""A vote of the sensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import ROUNDING, beat_rivals, leave_one_out, pass_gradient


def count_votes(logits: Tensor) -> Tensor:
    """(M, N, C) -> (M, N, C): 1 for each sensor's class; classes with equal logits share the vote."""
    best = (logits == logits.amax(2, keepdim=True)).to(logits)
    return best / best.sum(2, keepdim=True)


@register("fusion", "majority")
@dataclass(frozen=True, kw_only=True)
class Majority:
    """The number of votes of each class, plus the mean of its probabilities, which decides between equal numbers.

    Its gradient is that of the probabilities, plus a share of that of the mean of the logits (see `rule`). Lam & Suen,
    1997 (majority voting), https://doi.org/10.1109/3468.618255.
    """

    least: ClassVar[int] = 1

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C) scores in [0, M + 1]."""
        p = logits.softmax(2).mean(0)
        return pass_gradient(count_votes(logits).sum(0) + p, p, logits)

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """Of the other sensors' votes, y leads by more than 1, or by 1 and in probability (see `encoders.takeover`).

        Of three sensors, exactly the examples where all three are right, unless `reach` is small.
        """
        z = logits.double()
        label = y.expand(len(z), -1)[..., None]
        votes, mass = leave_one_out(count_votes(z)), leave_one_out(z.softmax(2))
        lead, gap = votes.gather(2, label) - votes, mass.gather(2, label) - mass
        # A lead of 1 is a tie once the sensor votes for the rival; then sum_m p_m decides, as for `mean`.
        tied = (lead - 1).abs() < ROUNDING
        bound = (reach.to(gap)[y] / 2).tanh().expand_as(gap)
        return beat_rivals(torch.where(tied, gap, lead), torch.where(tied, bound, torch.ones_like(gap)), y)
