"""Corruptions of waveforms by room, microphone, converter and link."""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np
from scipy import signal

from rlbench.core.registry import register
from rlbench.corruptions.waveform_noise import WaveformCorruption

Rng = np.random.Generator
Wave = np.ndarray
CHUNK = 0.1  # seconds per lost packet
CONVERTER = 2**11  # steps up to full scale of a 12-bit converter


def _filter(wave: Wave, hertz: float, rate: int, kind: Literal["low", "high"]) -> Wave:
    """Applies a sixth-order Butterworth filter with its cut-off at `hertz`."""
    return np.asarray(signal.sosfilt(signal.butter(6, hertz, kind, fs=rate, output="sos"), wave))


@register("corruption", "low_pass")
@dataclass(frozen=True, kw_only=True)
class LowPass(WaveformCorruption):
    """Audio: a low-pass, as of a wall or a wet microphone; sixth-order Butterworth.

    The cut-offs apply to rates of 17.8 kHz or more. At lower rates they shrink so that severity 1 is at 0.9 of the
    Nyquist frequency, where a filter still has an effect.
    """

    levels = (8000, 6000, 4000, 2000, 1000)
    unit = "Hz"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        return _filter(wave, self.scale(level), self.rate, "low")

    def scale(self, level: float) -> float:
        return level * min(1, 0.9 * self.rate / 2 / self.levels[0])


@register("corruption", "high_pass")
@dataclass(frozen=True, kw_only=True)
class HighPass(WaveformCorruption):
    """Audio: a high-pass, as of a tiny microphone or a wind filter; sixth-order Butterworth.

    The cut-offs apply to rates of 8 kHz or more; at lower rates they shrink with the rate.
    """

    levels = (100, 200, 400, 800, 1600)
    unit = "Hz"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        return _filter(wave, self.scale(level), self.rate, "high")

    def scale(self, level: float) -> float:
        return level * min(1, self.rate / 8000)


@register("corruption", "clipping")
@dataclass(frozen=True, kw_only=True)
class Clipping(WaveformCorruption):
    """Audio: overdriven: clipped at a share of the peak."""

    levels = (0.5, 0.35, 0.22, 0.14, 0.08)
    unit = "of peak"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        top = level * np.abs(wave).max(initial=0)
        return np.asarray(np.clip(wave, -top, top))


@register("corruption", "low_gain")
@dataclass(frozen=True, kw_only=True)
class LowGain(WaveformCorruption):
    """Audio: recorded far too quietly for a 12-bit converter, so that quantisation noise dominates.

    Bennett, 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01340.x. The recording stays quiet; for front ends that
    ignore the gain, only the quantisation matters.
    """

    levels = (-49, -52, -55, -57, -59)
    unit = "dB"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        return np.asarray(np.round(wave * 10 ** (level / 20) * CONVERTER) / CONVERTER)


@register("corruption", "reverberation")
@dataclass(frozen=True, kw_only=True)
class Reverberation(WaveformCorruption):
    """Audio: reverberation: exponentially decaying noise follows the direct sound; the level is RT60.

    Moorer, 1979, https://doi.org/10.2307/3680280. The reverberant energy grows with RT60, as in a room with fewer
    absorbers, and equals that of the direct sound at 0.4 s. The power of the recording does not change.
    """

    levels = (0.2, 0.4, 0.7, 1.1, 1.6)
    unit = "s RT60"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        seconds = np.arange(1, max(2, int(level * self.rate))) / self.rate
        tail = g.standard_normal(len(seconds)) * 10 ** (-3 * seconds / level)
        tail *= np.sqrt(level / 0.4 / np.sum(tail**2))
        room = signal.fftconvolve(wave, np.concatenate([[1.0], tail]))[: len(wave)]
        room *= np.sqrt(np.mean(wave**2) / max(np.mean(room**2), 1e-20))
        return np.asarray(room / max(1.0, np.abs(room).max(initial=0)))


@register("corruption", "dropout")
@dataclass(frozen=True, kw_only=True)
class AudioDropout(WaveformCorruption):
    """Audio: lost packets: a share of the chunks of 100 ms is silent, rounded to the nearest chunk."""

    levels = (0.1, 0.2, 0.3, 0.4, 0.5)
    unit = "of time"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        length = max(1, round(CHUNK * self.rate))
        chunks = -(-len(wave) // length)
        lost = g.permutation(chunks) < max(1, round(level * chunks))
        return np.where(np.repeat(lost, length)[: len(wave)], 0.0, wave)


@register("corruption", "speed")
@dataclass(frozen=True, kw_only=True)
class Speed(WaveformCorruption):
    """Audio: played too fast, so that pitch and tempo rise; the end is filled from the start.

    Ko et al., 2015, https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html, who use 0.9 to 1.1.
    """

    levels = (1.05, 1.1, 1.15, 1.2, 1.25)
    unit = "x"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        fast = signal.resample(wave, max(1, round(len(wave) / level)))
        return np.resize(fast, len(wave))


@register("corruption", "telephone")
@dataclass(frozen=True, kw_only=True)
class Telephone(WaveformCorruption):
    """Audio: a narrow link: resampled to a low rate, coded in 8-bit mu-law, and back.

    ITU-T G.711, 1988, https://www.itu.int/rec/T-REC-G.711, by libsndfile; resampled by scipy. The rates apply to
    recordings of 10 kHz or more; below, they shrink so that severity 1 is at 0.8 of the recording's own rate.
    """

    levels = (8000, 6000, 4000, 3000, 2000)
    unit = "Hz"

    def distort(self, wave: Wave, level: float, g: Rng) -> Wave:
        rate = round(self.scale(level))
        common = gcd(rate, self.rate)
        up, down = rate // common, self.rate // common
        back = signal.resample_poly(_mu_law(signal.resample_poly(wave, up, down), rate), down, up)
        return np.pad(back, (0, max(0, len(wave) - len(back))))[: len(wave)]

    def scale(self, level: float) -> float:
        return level * min(1, 0.8 * self.rate / self.levels[0])


def _mu_law(wave: Wave, rate: int) -> Wave:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), rate, "ULAW", format="WAV")
    file.seek(0)
    return np.asarray(soundfile.read(file)[0])
