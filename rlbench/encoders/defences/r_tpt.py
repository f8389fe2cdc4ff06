"""R-TPT without its prompt step: a mean of views, weighted by how well they agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Way, hold_nothing
from rlbench.encoders.defences.views import draw_views
from rlbench.encoders.heads import ZeroShot

ATTACKED = 4  # random views of a draw of the attack


@register("defence", "r-tpt")
@dataclass(frozen=True, kw_only=True)
class ReliableViews(ClassifierDefence):
    """Averages the logits of random views, weighted by their mean cosine to the views nearest to them.

    Sheng et al., 2025, https://arxiv.org/abs/2504.11195; weights as in the authors' code (R-TPT, rtpt.py): softmax of
    the mean of the 20 largest cosines over 0.01. Left out is their step on four tokens of the prompt, which needs a
    text tower with tokens; the views are random crops instead of AugMix. It is random and differentiable: it is
    attacked by its expectation, with fewer views a draw, also with the weights as a constant, since their gradient at
    this temperature hides that of the views.

    Attributes:
        views: the input and its random views, at least 2.
        nearest: cosines to average.
        temperature: of the weights.
        frozen: whether the weights are a constant for the gradient; its values are the same.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"randomised"})
    views: int = 64
    nearest: int = 20
    temperature: float = 0.01
    frozen: bool = False

    def embed(self, plain: ZeroShot, x: Tensor) -> Tensor:
        views = normalize(torch.stack([plain.embed(view) for view in draw_views(x, self.views)], dim=1), dim=-1)
        cosines = views @ views.transpose(1, 2)
        near = cosines.topk(min(self.nearest, self.views), dim=2).values.mean(2)
        weights = (near / self.temperature).softmax(1)[..., None]
        return ((weights.detach() if self.frozen else weights) * views).sum(1)

    def ways(self) -> tuple[Way, ...]:
        views = min(self.views, ATTACKED + 1)
        nearest = max(2, round(self.nearest * views / self.views))
        light = replace(self, views=views, nearest=nearest)
        frozen = replace(light, frozen=True)
        return (
            Way("pipeline", lambda plain, x: hold_nothing(light.predict(plain, x))),
            Way("frozen weights", lambda plain, x: hold_nothing(frozen.predict(plain, x))),
        )
