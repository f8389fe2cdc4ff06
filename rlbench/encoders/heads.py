"""Encoder + prompts -> zero-shot classifier: logits = logit_scale * cos(embedding, anchors).

Prompt ensembles as in CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020): per class, all templates
are embedded, normalised, averaged and normalised again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from rlbench.core import Box, Encoder, Label, Modality
from rlbench.encoders.articles import with_article
from rlbench.encoders.contract import scale_of
from rlbench.encoders.outputs import embed, embed_text


def prompts(name: str, templates: Sequence[str], phrase: str = "") -> list[str]:
    """One prompt per template; `{}` is the name, `{a}` the phrase, by default the name with its article."""
    phrase = phrase or with_article(name)
    return [t.replace("{a}", phrase).replace("{}", name) for t in templates]


def _identity(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot classifier. anchors: (C, D) unit rows, fixed during an attack; logits are float32.

    An encoder may have `answer(logits)`, (B, C) -> (B, C): what it makes of them itself.
    """

    encoder: Encoder
    modality: Modality
    anchors: Tensor

    @property
    def box(self) -> Box:
        """Of x."""
        return self.encoder.boxes[self.modality]

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits, differentiable in x."""
        logits = scale_of(self.encoder) * (embed(self.encoder, x, self.modality) @ self.anchors.T)
        return getattr(self.encoder, "answer", _identity)(logits)

    def anchors_hash(self) -> str:
        """Of the anchors, rounded to 1e-5, so that a machine's last bits do not matter."""
        rounded = (self.anchors.double().cpu() * 1e5).round().to(torch.int64).contiguous()
        return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:16]

    def twins(self) -> tuple[int, int] | None:
        """Two classes with the same anchor, which the text tower can't tell apart, so that neither is ever correct."""
        cos = (self.anchors @ self.anchors.T).triu(1)
        best = int(cos.argmax())
        return divmod(best, len(cos)) if float(cos.flatten()[best]) > 1 - 1e-6 else None


@dataclass(frozen=True)
class Viewed(ZeroShot):
    """A zero-shot classifier of several views of a clip: the mean of their probabilities.

    Softmax comes before the mean, as LanguageBind's evaluation has it (https://github.com/PKU-YuanGroup/LanguageBind,
    `merge` in v_cls/zeroshot_cls.py). An attack may change every view on its own, which is more than an attack on the
    clip could do where views overlap: an accuracy under attack errs on the low side.

    Attributes:
        views: their number V; the box has V times the encoder's frames, one view after the other.
    """

    views: int = 1

    @property
    def box(self) -> Box:
        box = super().box
        channels, frames, *size = box.shape
        return replace(box, shape=(channels, self.views * frames, *size))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits: of a single view, those of a ZeroShot.

        softmax(logits) is the mean of the views' softmax(z_v); the constant that softmax drops is their mean one.
        """
        b, c, frames, h, w = x.shape
        clips = x.reshape(b, c, self.views, frames // self.views, h, w).transpose(1, 2).flatten(0, 1)
        z = super().__call__(clips).view(b, self.views, -1)
        total = z.logsumexp(2, keepdim=True)
        mean: Tensor = (z - total).logsumexp(1) - log(self.views)
        return mean + total.mean(1)


def zero_shot(encoder: Encoder, modality: Modality, classes: Sequence[Label], templates: Sequence[str]) -> ZeroShot:
    """Embeds the classes' prompt ensembles once. Classes x templates -> a classifier."""
    rows = []
    with torch.no_grad():
        for label in classes:
            row = embed_text(encoder, prompts(label.name, templates, label.phrase)).mean(0)
            rows.append(row / row.norm())
    return ZeroShot(encoder, modality, torch.stack(rows))
