"""DBD: the embedding moves along the mean drift of its views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Held, Way, hold_nothing
from rlbench.encoders.defences.views import draw_views, take_surest
from rlbench.encoders.heads import ZeroShot

ATTACKED = 4  # random views of a draw of the attack


@register("defence", "dbd")
@dataclass(frozen=True, kw_only=True)
class Drift(ClassifierDefence):
    """Adds the mean drift of the views of lowest entropy to the embedding, more where their drifts agree.

    DBD, https://arxiv.org/abs/2606.06186, known from a summary only: f0 + D * (2.5 if S > 0.8 else 1), with D the mean
    of f_i - f0 over the 16 of 31 transforms with the lowest entropy, and S the mean cosine of f_i - f0 and D. Its
    accuracy under an attack that does not see it is above its clean accuracy: the attack leaks the label. The
    transforms are random crops here. Attacked through its whole, with the choice of views frozen, and through both
    gains, each held by a hinge on S.

    Attributes:
        views: transforms.
        lowest: of them, those with the lowest entropy.
        gain: of the drift where the drifts agree.
        threshold: on their mean cosine.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"randomised"})
    needs_classes: ClassVar[bool] = True
    views: int = 31
    lowest: int = 16
    gain: float = 2.5
    threshold: float = 0.8

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        own, drift, agreement = self._measure(plain, x)
        return _score(plain, own + drift * torch.where(agreement > self.threshold, self.gain, 1.0)[:, None])

    def ways(self) -> tuple[Way, ...]:
        light = replace(self, views=min(self.views, ATTACKED), lowest=min(self.lowest, ATTACKED // 2))
        return (
            Way("pipeline", lambda plain, x: hold_nothing(light.predict(plain, x))),
            Way("branch: gain", lambda plain, x: light._hold(plain, x, light.gain)),
            Way("branch: no gain", lambda plain, x: light._hold(plain, x, 1.0)),
        )

    def _measure(self, plain: ZeroShot, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The own embedding (B, D), the mean drift (B, D), and the drifts' agreement (B,)."""
        own, *views = [plain.embed(view) for view in draw_views(x, self.views + 1)]
        drifts = take_surest(plain, torch.stack(views), self.lowest) - own
        mean = drifts.mean(0)
        return own, mean, cosine_similarity(drifts, mean[None], dim=2).mean(0)

    def _hold(self, plain: ZeroShot, x: Tensor, gain: float) -> Held:
        own, drift, agreement = self._measure(plain, x)
        over = agreement - self.threshold
        return Held(_score(plain, own + gain * drift), (over if gain == 1.0 else -over).relu())


def _score(plain: ZeroShot, embedded: Tensor) -> Tensor:
    return plain.logit_scale * (normalize(embedded, dim=-1) @ plain.anchors.T)
