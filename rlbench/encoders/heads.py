"""Encoder + prompts -> zero-shot classifier: logits = logit_scale * cos(embedding, anchors).

Prompt ensembles as in CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020): per class, all templates
are embedded, normalised, averaged and normalised again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from math import log

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rlbench.core import Box, Encoder, Label, Modality
from rlbench.core.machine import full_float32
from rlbench.core.precision import Precision
from rlbench.encoders.articles import with_article
from rlbench.encoders.contract import scale_of
from rlbench.encoders.outputs import embed, embed_text


def prompts(name: str, templates: Sequence[str], phrase: str = "") -> list[str]:
    """One prompt per template; `{}` stands for the name, `{a}` for the phrase (default: the name with its article)."""
    phrase = phrase or with_article(name)
    return [t.replace("{a}", phrase).replace("{}", name) for t in templates]


def _identity(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot classifier with float32 logits.

    An encoder may have `answer(logits)`, (B, C) -> (B, C), which is applied to the logits, or `predict(head, x)`, which
    makes the logits (B, C) of x itself, with this head for its anchors, scale and box.

    Attributes:
        encoder: embeds the inputs.
        modality: the modality of the inputs.
        anchors: (C, D) unit rows, fixed during an attack.
        scale: of the logits; None: the encoder's.
        precision: of the encoder; the logits are computed in float32.
    """

    encoder: Encoder
    modality: Modality
    anchors: Tensor
    scale: float | None = field(default=None, kw_only=True)
    precision: Precision = field(default="fp32", kw_only=True)

    @property
    def logit_scale(self) -> float:
        """The factor of the cosines in the logits."""
        return scale_of(self.encoder) if self.scale is None else self.scale

    @property
    def box(self) -> Box:
        """The box of x."""
        return self.encoder.boxes[self.modality]

    def embed(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, D) unit rows, differentiable in x."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return embed(self.encoder, x, self.modality)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits, differentiable in x."""
        return self.score(x)

    def score(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the encoder's box -> (B, rows of anchors) logits, differentiable in x."""
        predict = getattr(self.encoder, "predict", None)
        if predict is not None:
            answer: Tensor = predict(self, x)
            return answer
        features = self.embed(x)
        with full_float32() if self.precision == "tf32" else nullcontext():
            logits = self.logit_scale * (features @ self.anchors.T)
        return getattr(self.encoder, "answer", _identity)(logits)

    def on(self, encoder: Encoder) -> ZeroShot:
        """The classifier with another encoder and the same anchors."""
        return replace(self, encoder=encoder)

    def in_precision(self, precision: Precision) -> ZeroShot:
        """The classifier with its encoder in this precision."""
        return replace(self, precision=precision)

    def anchors_hash(self) -> str:
        """A hash of the anchors, rounded to 1e-5 so that it is the same on every machine."""
        rounded = (self.anchors.double().cpu() * 1e5).round().to(torch.int64).contiguous()
        return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:16]

    def find_duplicate_anchors(self) -> tuple[int, int] | None:
        """Two classes with the same anchor, or None; such classes tie, so neither is ever correct."""
        cos = (self.anchors @ self.anchors.T).triu(1)
        best = int(cos.argmax())
        return divmod(best, len(cos)) if float(cos.flatten()[best]) > 1 - 1e-6 else None


@dataclass(frozen=True)
class Viewed(ZeroShot):
    """A zero-shot classifier of several views of a clip, which averages their probabilities.

    Softmax comes before the mean, as in LanguageBind's evaluation (https://github.com/PKU-YuanGroup/LanguageBind,
    `merge` in v_cls/zeroshot_cls.py). An attack may change each view separately; where views overlap, an attack on the
    clip itself could do less, so accuracy under attack is a lower bound.

    Attributes:
        views: number V of views; the box has V times the encoder's frames, one view after the other.
    """

    views: int = 1

    @property
    def box(self) -> Box:
        box = super().box
        channels, frames, *size = box.shape
        return replace(box, shape=(channels, self.views * frames, *size))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits; with one view, the same as those of a ZeroShot.

        softmax(logits) is the mean of softmax(z_v) over the views; softmax ignores the constant added to the logits.
        """
        b, c, frames, h, w = x.shape
        clips = x.reshape(b, c, self.views, frames // self.views, h, w).transpose(1, 2).flatten(0, 1)
        z = super().__call__(clips).view(b, self.views, -1)
        total = z.logsumexp(2, keepdim=True)
        mean: Tensor = (z - total).logsumexp(1) - log(self.views)
        return mean + total.mean(1)


@dataclass(frozen=True)
class Resized(ZeroShot):
    """A zero-shot classifier of pictures at their own resolution, which are resized to the encoder's box inside it.

    Bicubic without antialiasing, as in RobustVLM's evaluation on CIFAR and STL-10 (Schlarmann et al., 2024,
    https://github.com/chs20/RobustVLM, `run` in CLIP_benchmark/clip_benchmark/cli.py). Values are not clipped.

    Attributes:
        resolution: rows and columns of the box.
    """

    resolution: int = 32

    @property
    def box(self) -> Box:
        box = super().box
        return replace(box, shape=(box.shape[0], self.resolution, self.resolution), fit=None)

    def embed(self, x: Tensor) -> Tensor:
        rows, columns = (_bicubic(self.resolution, n).to(x) for n in super().box.shape[-2:])
        return super().embed(rows @ x @ columns.T)


@cache
def _bicubic(n: int, m: int) -> Tensor:
    """(m, n) weights of a bicubic resize, as torch's `interpolate` has them; its own gradient on a GPU is random."""
    return interpolate(torch.eye(n)[None, None], (m, n), mode="bicubic", align_corners=False)[0, 0]


def zero_shot(encoder: Encoder, modality: Modality, classes: Sequence[Label], templates: Sequence[str]) -> ZeroShot:
    """A classifier of the classes, whose prompt ensembles are embedded once."""
    rows = []
    with torch.no_grad():
        for label in classes:
            row = embed_text(encoder, prompts(label.name, templates, label.phrase)).mean(0)
            rows.append(row / row.norm())
    return ZeroShot(encoder, modality, torch.stack(rows))
