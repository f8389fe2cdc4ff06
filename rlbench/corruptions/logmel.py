"""Corruptions of log-mel spectrograms, for tasks without waveforms: 1 is the peak, 0 is silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Modality
from rlbench.core.registry import register
from rlbench.corruptions.levels import Levelled

Rng = np.random.Generator


class LogMelCorruption(Levelled):
    """A corruption of (1, mels, frames) in [0, 1], low frequencies first."""

    modalities: ClassVar[frozenset[Modality]] = frozenset({"audio"})
    acts_on: ClassVar[str] = "log-mel"
    dimensions = (3,)


def _draw_mask(size: int, share: float, g: Rng) -> np.ndarray:
    """(size,) bool: two disjoint stretches that together cover `share`."""
    total = min(size - 1, max(2, round(share * size)))
    first = total // 2
    a, b = np.sort(g.integers(0, size - total + 1, 2))
    places = np.arange(size)
    return np.asarray(((a <= places) & (places < a + first)) | ((b + first <= places) & (places < b + total)))


@register("corruption", "time_mask")
@dataclass(frozen=True, kw_only=True)
class TimeMask(LogMelCorruption):
    """Log-mel: two stretches of time are silent. Park et al. (SpecAugment), 2019, https://arxiv.org/abs/1904.08779."""

    levels = (0.05, 0.1, 0.15, 0.22, 0.3)
    unit = "of time"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.where(_draw_mask(x.shape[2], level, g), 0.0, x)


@register("corruption", "frequency_mask")
@dataclass(frozen=True, kw_only=True)
class FrequencyMask(LogMelCorruption):
    """Log-mel: two stretches of bands are silent. Park et al. (SpecAugment), 2019, https://arxiv.org/abs/1904.08779."""

    levels = (0.05, 0.1, 0.15, 0.22, 0.3)
    unit = "of bands"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.where(_draw_mask(x.shape[1], level, g)[:, None], 0.0, x)


@register("corruption", "logmel_noise")
@dataclass(frozen=True, kw_only=True)
class LogMelNoise(LogMelCorruption):
    """Log-mel: gaussian noise; the level is its standard deviation (1 is the whole range)."""

    levels = (0.05, 0.09, 0.14, 0.2, 0.27)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return x + level * g.standard_normal(x.shape)


@register("corruption", "spectral_tilt")
@dataclass(frozen=True, kw_only=True)
class SpectralTilt(LogMelCorruption):
    """Log-mel: another microphone, whose gain rises or falls by the level from the first band to the last."""

    levels = (0.1, 0.2, 0.3, 0.45, 0.6)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        slope = np.linspace(-level / 2, level / 2, x.shape[1])
        return np.asarray(x + g.choice((-1, 1)) * slope[:, None])
