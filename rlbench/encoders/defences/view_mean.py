"""The mean embedding of random views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Way
from rlbench.encoders.defences.views import draw_views
from rlbench.encoders.heads import ZeroShot

ATTACKED = 4  # random views of a draw of the attack


@register("defence", "view-mean")
@dataclass(frozen=True, kw_only=True)
class ViewMean(ClassifierDefence):
    """Averages the embeddings of random crops: the simplest test-time defence, the yardstick of the others.

    The view average that RITA (https://arxiv.org/abs/2607.09450, table read) compares itself with is within 1.4 points
    of it. It is random and differentiable: it is attacked by its expectation, with fewer views a draw.

    Attributes:
        views: the input and its random views, at least 1.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"randomised"})
    views: int = 64

    def embed(self, plain: ZeroShot, x: Tensor) -> Tensor:
        return torch.stack([plain.embed(view) for view in draw_views(x, self.views)]).mean(0)

    def ways(self) -> tuple[Way, ...]:
        return super(ViewMean, replace(self, views=min(self.views, ATTACKED + 1))).ways()
