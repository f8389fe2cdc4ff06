"""The median of the sensors' logits per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import beat_rivals, pass_gradient


def find_median(logits: Tensor) -> Tensor:
    """(M, N, C) -> (N, C), per class; of an even number, the mean of the middle two."""
    ordered, count = logits.sort(0).values, len(logits)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


@register("fusion", "median")
@dataclass(frozen=True, kw_only=True)
class Median:
    """The median of the logits of each class; its gradient has a share of the mean's (see `rule`).

    Kittler et al., 1998, https://doi.org/10.1109/34.667881.
    """

    least: ClassVar[int] = 3

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C)."""
        median = find_median(logits)
        return pass_gradient(median, median, logits)

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """The lowest median of y exceeds the highest of every rival, whatever a sensor says (see `encoders.takeover`).

        If one value of M may be anything, the median is at least what it is with that value at -infinity, and at most
        that at infinity. Exact if a sensor may give any logits; `reach` is not used, so for unit vectors it is a bound.
        """
        z = logits.double()
        infinity = torch.full_like(z[:1], 1e9)
        others = [torch.cat([z[:j], z[j + 1 :]]) for j in range(len(z))]
        low = torch.stack([find_median(torch.cat([rest, -infinity])) for rest in others])
        high = torch.stack([find_median(torch.cat([rest, infinity])) for rest in others])
        gap = low.gather(2, y.expand(len(z), -1)[..., None]) - high
        return beat_rivals(gap, torch.zeros_like(gap), y)
