"""InfoNCE to captions: the objective of LanguageBind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import check_positive, infonce
from rlbench.training.types import Batch, Need


@register("objective", "infonce")
@dataclass(frozen=True, kw_only=True)
class InfoNCE:
    """InfoNCE to captions embedded by a frozen text tower; no adversary.

    LanguageBind: Zhu et al., 2023, https://arxiv.org/abs/2310.01852; LiT: Zhai et al., 2022,
    https://arxiv.org/abs/2111.07991.

    Attributes:
        scale: s of the logits.
    """

    scale: float = 20.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """InfoNCE(f)."""
        return infonce(f, batch, self.scale)

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """Not implemented: there is no adversary."""
        raise NotImplementedError
