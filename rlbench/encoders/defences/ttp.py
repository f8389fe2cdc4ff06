"""TTP: an embedding that moves when the input is padded gives an attack away, and only then views are averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate, pad

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.core.threat import per_row
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Held, Way, ascent, hold_nothing, span
from rlbench.encoders.defences.views import draw_views, entropy
from rlbench.encoders.heads import ZeroShot

ATTACKED = 4  # views of a draw of the attack
PAPER = 224  # pixels to which the padding refers


@register("defence", "ttp")
@dataclass(frozen=True, kw_only=True)
class Padding(ClassifierDefence):
    """Leaves an input whose embedding hardly moves when it is padded; else averages views within an adapted padding.

    TTP, https://arxiv.org/abs/2512.16523, known from a summary only: with s = cos(f(x), f(pad 32 x)) > 0.8 the plain
    classifier answers; else the padding (start: uniform in [0, 10] of 255) takes one step of 5 down the entropy of the
    views' mean probabilities (its sign, assumed), and the views' logits are averaged with the weights
    softmax(cos(z_i, z_pad) - cos(z_i, z)). Here all views count; they are random crops, padded by the same border,
    scaled to the input's size.

    The gate has no gradient. It is attacked through its whole, and branch by branch, with a hinge on s: where the
    attack keeps s above the threshold, the plain classifier decides.

    Attributes:
        padding: width of the border, at 224 pixels.
        threshold: on the cosine.
        views: random views.
        start: largest value of the padding at first, of 255.
        step: its step, of 255.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"randomised", "dynamic"})
    needs_gradient: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    padding: int = 32
    threshold: float = 0.8
    views: int = 63
    start: float = 10.0
    step: float = 5.0

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        own, kept = self._probe(plain, x)
        return torch.where(per_row(kept > self.threshold, own), own, self._adapt(plain, x, own))

    def ways(self) -> tuple[Way, ...]:
        light = replace(self, views=min(self.views, ATTACKED))
        return (
            Way("pipeline", lambda plain, x: hold_nothing(light.predict(plain, x))),
            Way("branch: plain", light._hold_plain),
            Way("branch: adapted", light._hold_adapted),
        )

    def _probe(self, plain: ZeroShot, x: Tensor) -> tuple[Tensor, Tensor]:
        """The undefended logits (B, C), and the cosine (B,) between the embedding with and without a black border."""
        border = torch.full((1, *x.shape[1:]), plain.box.low).to(x)
        return plain.score(x), cosine_similarity(plain.embed(x), plain.embed(self._frame(x, border)), dim=1)

    def _frame(self, x: Tensor, border: Tensor) -> Tensor:
        """x (B, *shape) shrunk, inside a border (1 or B, *shape) of the same size in all."""
        h, w = x.shape[-2:]
        top, left = (max(1, round(size * self.padding / (PAPER + 2 * self.padding))) for size in (h, w))
        frames = x.reshape(len(x), -1, h, w)
        small = interpolate(frames, size=(h - 2 * top, w - 2 * left), mode="bilinear", align_corners=False)
        inside = pad(torch.ones_like(small[:1, :1]), (left, left, top, top))
        placed = pad(small, (left, left, top, top)).reshape(x.shape)
        return placed + border * (1 - inside.reshape(*[1] * (x.dim() - 2), h, w))

    def _adapt(self, plain: ZeroShot, x: Tensor, own: Tensor) -> Tensor:
        """The weighted logits (B, C) of the views within the adapted border, which is a constant."""
        unit, (_, *views) = span(plain.box) / 255, draw_views(x, self.views + 1)
        border = plain.box.low + unit * self.start * torch.rand(1, *x.shape[1:]).to(x)
        border = border.expand_as(x)

        def sureness(at: Tensor) -> Tensor:
            mean = torch.stack([plain.score(self._frame(view.detach(), at)).log_softmax(1) for view in views])
            return -entropy(mean.logsumexp(0))

        border = border + unit * self.step * ascent(sureness, border).sign()
        framed = plain.score(self._frame(x, border))
        logits = torch.stack([plain.score(self._frame(view, border)) for view in views])
        nearer = cosine_similarity(logits, framed[None], dim=2) - cosine_similarity(logits, own[None], dim=2)
        return (nearer.softmax(0)[..., None] * logits).sum(0)

    def _hold_plain(self, plain: ZeroShot, x: Tensor) -> Held:
        own, kept = self._probe(plain, x)
        return Held(own, (self.threshold - kept).relu())

    def _hold_adapted(self, plain: ZeroShot, x: Tensor) -> Held:
        own, kept = self._probe(plain, x)
        return Held(self._adapt(plain, x, own), (kept - self.threshold).relu())
