"""Expectation over the randomness of a randomised encoder (EoT)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core import Classifier
from rlbench.core.errors import FieldError
from rlbench.core.seeds import generator, seed_globals

DRAWS = 20


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """The mean of a randomised classifier's logits over fixed draws: one function, deterministic and differentiable.

    Athalye et al., 2018, https://arxiv.org/abs/1802.00420, section 4.2: an attack on a randomised classifier must
    maximise the expected loss. Clean prediction, gradient and judge use the same draws, so results are reproducible.
    This favours the attack, which knows the draws, so robust accuracy is underestimated rather than overestimated.

    Every example and draw is a separate call with seeded global generators, since the numbers that a row of a batch
    draws depend on the rows before it (but see `together`). So the mean depends on neither batch size nor order. Each
    pass of an example costs `draws` passes of the wrapped classifier, which counts them.

    Attributes:
        classifier: the classifier of the randomised encoder, such as a `Meter`.
        draws: number of draws to average, at least 1.
        seed: the seed of the draws.
        together: whether the encoder draws once per call, the same for all rows; then a call may have many rows.
    """

    classifier: Classifier
    draws: int = DRAWS
    seed: int = 0
    together: bool = False

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise FieldError(f"expectation: draws is {self.draws}; it must be at least 1")

    @property
    def batch_size(self) -> int:
        """The examples whose draws fit in memory together."""
        return max(1, self.classifier.batch_size // self.draws)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) mean logits, differentiable in x."""
        if not len(x):
            return self.classifier(x, rows=rows)
        rows = torch.arange(len(x)) if rows is None else rows
        seeds = [int(generator(self.seed, "draw", i).integers(2**32)) for i in range(self.draws)]
        size = self.classifier.batch_size if self.together else 1
        parts = [slice(i, i + size) for i in range(0, len(x), size)]
        return torch.cat([self._mean(x[part], rows[part], seeds) for part in parts])

    def _mean(self, x: Tensor, rows: Tensor, seeds: list[int]) -> Tensor:
        logits = []
        for seed in seeds:
            with seed_globals(seed, x.device):
                logits.append(self.classifier(x, rows=rows))
        return torch.stack(logits).mean(0)
