"""Encoders whose answers depend on more than their input, and some that write into what they get."""

from __future__ import annotations

import torch
from slips import Good
from torch import Tensor
from torch.nn.functional import normalize


class Company(Good):
    """Takes a little of the batch's mean off."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x - 0.01 * x.mean(0), modality)


class Quantised(Good):
    """Rounds to steps of the batch's own range, as dynamic quantisation does."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        f = super().embed(x, modality)
        step = f.detach()[:, :4].abs().max() / 3
        return normalize(f + ((f / step).round() * step - f).detach(), dim=1)


class Sorted(Good):
    """Gives the rows back in another order."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x, modality)[x.flatten(1).sum(1).argsort()]


class Small(Good):
    """Another function for small batches."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x if len(x) > 7 else x.flip(-1), modality)


class Noisy(Good):
    """Noise that it does not declare."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x + 0.1 * torch.randn(x.shape), modality)


class OwnGenerator(Good):
    """Declares its noise, and draws it where nobody can seed it."""

    traits = frozenset({"randomised"})
    own = torch.Generator()

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return normalize(super().embed(x, modality) + 0.3 * torch.randn(5, generator=self.own), dim=1)


class Drifting(Good):
    """Remembers what it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, x: Tensor, modality: str) -> Tensor:
        self.seen += 1
        return super().embed(x + 0.01 * self.seen, modality)


class TwoFaced(Good):
    """Another function where a gradient is asked for."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x.flip(-1) if x.requires_grad else x, modality)


class Writing(Good):
    """Its preparation is in place, where torch lets it and where a copy is needed."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        x.copy_(x.flip(-1))
        found = super().embed(x, modality)
        x.detach().fill_(7.0)
        return found.clone()

    def embed_text(self, prompts: list[str]) -> Tensor:
        found = super().embed_text(prompts)
        prompts.clear()
        return found


class Plain(Good):
    """What `Writing` computes."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x.flip(-1), modality)
