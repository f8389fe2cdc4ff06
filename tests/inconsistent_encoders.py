"""Encoders whose outputs depend on more than their input, and some that write into their arguments."""

from __future__ import annotations

import torch
from faulty_encoders import Good
from torch import Tensor
from torch.nn.functional import normalize


class Company(Good):
    """Subtracts a little of the batch's mean."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x - 0.01 * x.mean(0), modality)


class Quantised(Good):
    """Rounds to steps of the batch's own range, as dynamic quantisation does."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        f = super().embed(x, modality)
        step = f.detach()[:, :4].abs().max() / 3
        return normalize(f + ((f / step).round() * step - f).detach(), dim=1)


class Sorted(Good):
    """Returns the rows in another order."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x, modality)[x.flatten(1).sum(1).argsort()]


class Small(Good):
    """Computes another function for small batches."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x if len(x) > 7 else x.flip(-1), modality)


class Noisy(Good):
    """Adds noise without declaring it."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x + 0.1 * torch.randn(x.shape), modality)


class OwnGenerator(Good):
    """Declares its noise, but draws it from a generator that nobody can seed."""

    traits = frozenset({"randomised"})
    own = torch.Generator()

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return normalize(super().embed(x, modality) + 0.3 * torch.randn(5, generator=self.own), dim=1)


class Drifting(Good):
    """Changes with every call."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, x: Tensor, modality: str) -> Tensor:
        self.seen += 1
        return super().embed(x + 0.01 * self.seen, modality)


class TwoFaced(Good):
    """Computes another function when a gradient is required."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x.flip(-1) if x.requires_grad else x, modality)


class Writing(Good):
    """Changes its arguments in place."""

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
    """Computes the same as `Writing`, without changing its arguments."""

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x.flip(-1), modality)
