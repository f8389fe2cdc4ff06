"""Dimming: a corruption in five lines."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlbench.core import Modality, Streams
from rlbench.core.registry import register


@register("corruption", "dim")
@dataclass(frozen=True, kw_only=True)
class Dim:
    """The whole input at 90, 80, ... 50% of its intensity."""

    modalities: ClassVar[frozenset[Modality]] = frozenset({"image", "thermal"})

    def __call__(self, x: Tensor, severity: int, streams: Streams) -> Tensor:
        return x * (1 - 0.1 * severity)
