"""Log-mel spectrograms: corruptions for tasks that have no waveform at hand. 1 is the loudest cell, 0 is silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Modality
from rlbench.core.registry import register
from rlbench.corruptions.levels import Levelled

Rng = np.random.Generator


class LogMel(Levelled):
    """Of (1, mels, frames) in [0, 1], low frequencies first."""

    modalities: ClassVar[frozenset[Modality]] = frozenset({"audio"})
    acts_on: ClassVar[str] = "log-mel"
    dimensions = (3,)


def _draw_mask(size: int, share: float, g: Rng) -> np.ndarray:
    """(size,) bool: two stretches that do not meet, of `share` of the places together."""
    total = min(size - 1, max(2, round(share * size)))
    first = total // 2
    a, b = np.sort(g.integers(0, size - total + 1, 2))
    places = np.arange(size)
    return np.asarray(((a <= places) & (places < a + first)) | ((b + first <= places) & (places < b + total)))


@register("corruption", "time_mask")
@dataclass(frozen=True, kw_only=True)
class TimeMask(LogMel):
    """Log-mel: two stretches of time are silent. Park et al. (SpecAugment), 2019, https://arxiv.org/abs/1904.08779."""

    levels = (0.05, 0.1, 0.15, 0.22, 0.3)
    unit = "of time"

    def one(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.where(_draw_mask(x.shape[2], level, g), 0.0, x)


@register("corruption", "frequency_mask")
@dataclass(frozen=True, kw_only=True)
class FrequencyMask(LogMel):
    """Log-mel: two stretches of bands are silent. Park et al. (SpecAugment), 2019, https://arxiv.org/abs/1904.08779."""

    levels = (0.05, 0.1, 0.15, 0.22, 0.3)
    unit = "of bands"

    def one(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.where(_draw_mask(x.shape[1], level, g)[:, None], 0.0, x)


@register("corruption", "logmel_noise")
@dataclass(frozen=True, kw_only=True)
class LogMelNoise(LogMel):
    """Log-mel: gaussian noise of every cell; the level is its standard deviation in the box (1 is the whole range)."""

    levels = (0.05, 0.09, 0.14, 0.2, 0.27)
    unit = "of range"

    def one(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return x + level * g.standard_normal(x.shape)


@register("corruption", "spectral_tilt")
@dataclass(frozen=True, kw_only=True)
class SpectralTilt(LogMel):
    """Log-mel: another microphone: a gain that rises or falls over the bands, by the level from first to last."""

    levels = (0.1, 0.2, 0.3, 0.45, 0.6)
    unit = "of range"

    def one(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        slope = np.linspace(-level / 2, level / 2, x.shape[1])
        return np.asarray(x + g.choice((-1, 1)) * slope[:, None])
