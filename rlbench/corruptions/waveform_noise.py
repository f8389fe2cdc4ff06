"""Corruptions of waveforms by additive noise, at a given signal-to-noise ratio.

The signal's power includes the noise that a recording already has. The ratios go from 12 to 0 dB, since 40 to 20 dB are
inaudible on field recordings (on the bundled world they cost the backbone 0 to 0.6 points).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import fft, signal

from rlbench.core import Modality
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.corruptions.levels import Levelled

Rng = np.random.Generator
Wave = np.ndarray
TALKERS = 8


@dataclass(frozen=True, kw_only=True)
class WaveformCorruption(Levelled):
    """A corruption of (1, samples) in [0, 1], silence at 1/2, 16 bits.

    Attributes:
        rate: samples per second, at least 1000; the harness sets it to the task's.
    """

    rate: int = 16000

    modalities: ClassVar[frozenset[Modality]] = frozenset({"audio"})
    acts_on: ClassVar[str] = "waveform"
    steps: ClassVar[int] = 65535
    dimensions = (2,)

    def __post_init__(self) -> None:
        if self.rate < 1000:
            raise FieldError(f"{type(self).__name__}: rate is {self.rate}; it must be 1000 Hz or more")

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.asarray((np.stack([self.distort(channel, level, g) for channel in 2 * x - 1]) + 1) / 2)

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        """Corrupts (samples,) in [-1, 1]; the result is clipped to [-1, 1]."""
        raise NotImplementedError

    def scale(self, level: float) -> float:
        """The level adapted to `rate`."""
        return level

    def level(self, severity: int) -> str:
        return f"{self.scale(self.levels[severity - 1]):g} {self.unit}"


class AddedNoise(WaveformCorruption):
    """Additive noise at a signal-to-noise ratio; the sum is scaled down if it would clip."""

    levels = (12, 9, 6, 3, 0)
    unit = "dB SNR"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        noise, power = self.draw_noise(len(wave), g), np.mean(wave**2)
        sum_ = wave + noise * np.sqrt(power / max(np.mean(noise**2), 1e-20)) * 10 ** (-level / 20)
        return np.asarray(sum_ / max(1.0, np.abs(sum_).max(initial=0)))

    def draw_noise(self, n: int, g: Rng) -> Wave:
        """(n,) noise of any power."""
        raise NotImplementedError

    def shape_noise(self, n: int, g: Rng, corner: float, slope: float) -> Wave:
        """Gaussian noise, flat up to `corner` Hz, with its amplitude falling as f ** -slope above."""
        gain = np.maximum(fft.rfftfreq(n, 1 / self.rate), corner) ** -slope
        return np.asarray(fft.irfft(fft.rfft(g.standard_normal(n)) * gain, n))


@register("corruption", "white_noise")
@dataclass(frozen=True, kw_only=True)
class WhiteNoise(AddedNoise):
    """Audio: gaussian noise of equal power at all frequencies, as of an amplifier."""

    def draw_noise(self, n: int, g: Rng) -> Wave:
        return g.standard_normal(n)


@register("corruption", "pink_noise")
@dataclass(frozen=True, kw_only=True)
class PinkNoise(AddedNoise):
    """Audio: gaussian noise of equal power per octave (1/f), similar to ambient noise; flat below 20 Hz.

    On 1/f noise in sound: Voss and Clarke, 1975, https://doi.org/10.1038/258317a0.
    """

    def draw_noise(self, n: int, g: Rng) -> Wave:
        return self.shape_noise(n, g, 20, 0.5)


@register("corruption", "babble_noise")
@dataclass(frozen=True, kw_only=True)
class BabbleNoise(AddedNoise):
    """Audio: synthetic babble: eight talkers, each noise with the spectrum of speech, modulated by syllables.

    The spectrum is flat to 500 Hz and falls by 9 dB per octave above, a rough fit to Byrne et al., 1994,
    https://doi.org/10.1121/1.410152; syllables come 3 to 6 times per second. MUSAN's babble also sums talkers, but
    recorded ones (Snyder et al., 2015, https://arxiv.org/abs/1510.08484).
    """

    def draw_noise(self, n: int, g: Rng) -> Wave:
        seconds = np.arange(n) / self.rate
        syllables, phases = g.uniform(3, 6, (TALKERS, 1)), g.uniform(0, np.pi, (TALKERS, 1))
        swells = np.sin(np.pi * syllables * seconds + phases) ** 2
        return np.asarray(sum(swell * self.shape_noise(n, g, 500, 1.5) for swell in swells))


@register("corruption", "click_noise")
@dataclass(frozen=True, kw_only=True)
class ClickNoise(AddedNoise):
    """Audio: impulse noise: 30 clicks per second of random size, each ringing for about a millisecond.

    Impulsive interference as a sparse process of heavy-tailed sizes (Middleton, 1977,
    https://doi.org/10.1109/TEMC.1977.303527), here with laplacian sizes.
    """

    def draw_noise(self, n: int, g: Rng) -> Wave:
        clicks = np.zeros(n)
        at = g.integers(0, n, max(1, round(30 * n / self.rate)))
        clicks[at] = g.laplace(size=len(at))
        return np.asarray(signal.lfilter([1, -1], [1, -np.exp(-1 / (0.0005 * self.rate))], clicks))
