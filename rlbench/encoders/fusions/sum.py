"""The sum of the sensors' logits, divided by their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import beat_rivals, leave_one_out


@register("fusion", "sum")
@dataclass(frozen=True, kw_only=True)
class Sum:
    """The mean of the logits: embedding arithmetic, and the product of the sensors' softmaxes.

    With one scale for all sensors, scale * mean_m(f_m . A_c) = scale * mean_m(f_m) . A_c. Dividing by the number of
    sensors changes no answer. Girdhar et al., 2023 (ImageBind), https://arxiv.org/abs/2305.05665; product of experts:
    Hinton, 2002, https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf.
    """

    least: ClassVar[int] = 1

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C)."""
        return logits.mean(0)

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """Exact: sum_{m != j} (z_my - z_mt) > reach[y, t] for every sensor j and rival t (see `encoders.takeover`).

        A sensor that says u = (A_t - A_y) / |A_t - A_y| attains the bound.
        """
        others = leave_one_out(logits.double())
        gap = others.gather(2, y.expand(len(others), -1)[..., None]) - others
        return beat_rivals(gap, reach.to(gap)[y], y)
