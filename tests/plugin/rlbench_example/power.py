"""A power mean of the sensors' probabilities: a fusion in five lines."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlbench.core.registry import register


@register("fusion", "power")
@dataclass(frozen=True, kw_only=True)
class PowerMean:
    """The logarithm of the mean of p ** exponent, which is between the product (near 0) and the mean (1)."""

    least: ClassVar[int] = 1
    exponent: float = 0.5

    def fuse(self, logits: Tensor) -> Tensor:
        return (self.exponent * logits.log_softmax(2)).logsumexp(0) / self.exponent
