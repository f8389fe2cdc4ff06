"""TTC: a counterattack on the input, away from its own embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.core.threat import per_row
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Held, Way, ascent, move, span
from rlbench.encoders.heads import ZeroShot


@register("defence", "ttc")
@dataclass(frozen=True, kw_only=True)
class Counterattack(ClassifierDefence):
    """Moves an input away from its own embedding, unless random noise already moves the embedding far.

    Xing et al., 2025, https://arxiv.org/abs/2503.03613; constants as in the authors' code
    (code/test_time_counterattack.py of CLIP-Test-time-Counterattacks). Two deviations: the gate uses the encoder's own
    embedding, not that of the encoder before fine-tuning, and unit embeddings.

    Attacked through its whole (the counterattack is a constant), and branch by branch, where a hinge holds the gate:
    at `noise` only the random noise is left of the defence.

    Attributes:
        eps: radius of the counterattack (Linf), as a share of the box.
        step: length of a step, as a share of the box.
        steps: sign steps.
        threshold: from this relative change by noise on, there is no counterattack.
        sharpness: the iterate k has the weight exp(sharpness * k).
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"randomised", "dynamic"})
    needs_gradient: ClassVar[bool] = True
    eps: float = 4 / 255
    step: float = 1 / 255
    steps: int = 2
    threshold: float = 0.2
    sharpness: float = 2.0

    def embed(self, plain: ZeroShot, x: Tensor) -> Tensor:
        noise, change = self._probe(plain, x)
        counter = self._counter(plain, x, noise)
        return plain.embed(move(x, torch.where(per_row(change < self.threshold, x), counter, noise), plain.box))

    def ways(self) -> tuple[Way, ...]:
        return (*super().ways(), Way("branch: noise", self._hold_noise), Way("branch: counter", self._hold_counter))

    def _probe(self, plain: ZeroShot, x: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform noise (1, *shape), and the relative change (B,) of the embedding by it."""
        noise = self.eps * span(plain.box) * (2 * torch.rand(1, *x.shape[1:]) - 1).to(x)
        noise = noise.expand_as(x)
        return noise, (plain.embed(move(x, noise, plain.box)) - plain.embed(x)).norm(dim=1)

    def _counter(self, plain: ZeroShot, x: Tensor, noise: Tensor) -> Tensor:
        """The weighted iterates (B, *shape) of the counterattack, a constant."""
        radius, step, deltas = self.eps * span(plain.box), self.step * span(plain.box), [noise]
        x = x.detach()
        with torch.no_grad():
            own = plain.embed(x)
        for _ in range(self.steps):
            gradient = ascent(lambda at: (plain.embed(at) - own).square().sum(1), move(x, deltas[-1], plain.box))
            deltas.append((deltas[-1] + step * gradient.sign()).clamp(-radius, radius))
        weights = (self.sharpness * torch.arange(len(deltas), dtype=x.dtype)).softmax(0).tolist()
        return torch.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)]).sum(0)

    def _hold_noise(self, plain: ZeroShot, x: Tensor) -> Held:
        noise, change = self._probe(plain, x)
        return Held(plain.score(move(x, noise, plain.box)), (self.threshold - change).relu())

    def _hold_counter(self, plain: ZeroShot, x: Tensor) -> Held:
        noise, change = self._probe(plain, x)
        counter = self._counter(plain, x, noise)
        return Held(plain.score(move(x, counter, plain.box)), (change - self.threshold).relu())
