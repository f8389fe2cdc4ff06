"""CLIPure-Cos: rotations of the embedding towards the embedding of an empty prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Way, hold_nothing
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.outputs import embed_text

TEMPLATES = ("a photo of a .", "a picture of a .", "an image of a .", "a .")  # of no class


@register("defence", "clipure-cos")
@dataclass(frozen=True, kw_only=True)
class Clipure(ClassifierDefence):
    """Purifies the embedding u: n(u + step g / |g|), ten times, with g the gradient of cos(u, t) and t an empty prompt.

    Zhang et al., 2025, https://arxiv.org/abs/2502.18176; the loop as in the authors' code (CLIP_eval/CLIPure_Cos.py),
    for a batch of one: there |g| is that of a batch, by default of two. The code's templates are CLIP's 80 of ImageNet
    with an empty name; TEMPLATES stand for them.

    As released it masks gradients. A step of 30 rotates u by atan 30 = 88.09 degrees towards t, past t, and the next
    step rotates it back: an even number of steps is the identity. But g is detached, so the backward pass shrinks the
    gradient by 30 at each step, to about 1e-15 in all, and the towers run in half precision, where that is zero. It is
    attacked through the undefended encoder, and through the loop in float32.

    Attributes:
        step: length of a step, before the normalisation.
        steps: number of steps.
        half: whether the embedding has half precision, as the released towers' has.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset()
    step: float = 30.0
    steps: int = 10
    half: bool = True

    def embed(self, plain: ZeroShot, x: Tensor) -> Tensor:
        u = normalize(plain.embed(x), dim=-1)
        u = u.half().float() if self.half else u
        with torch.no_grad():
            empty = normalize(embed_text(plain.encoder, TEMPLATES).mean(0), dim=0).to(u)
        for _ in range(self.steps):
            at = u.detach()
            gradient = empty - (at @ empty)[:, None] * at / at.square().sum(1, keepdim=True)
            u = normalize(u + self.step * normalize(gradient, dim=-1), dim=-1)
        return u

    def ways(self) -> tuple[Way, ...]:
        full = replace(self, half=False)
        return (*super().ways(), Way("float32", lambda plain, x: hold_nothing(full.predict(plain, x))))
