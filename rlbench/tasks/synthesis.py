"""Synthesis of sounds of one second at 8 kHz, and their rendering at an audio box: what the audio worlds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from torch import Tensor

from rlbench.core import Box, Examples, Split
from rlbench.core.errors import ModalityError
from rlbench.core.media import preprocess
from rlbench.core.media.log_mel import logmel
from rlbench.core.media.sounds import window
from rlbench.tasks.batch import stack

RATE = 8000  # Hz
T = np.arange(RATE) / RATE
HERTZ = fft.rfftfreq(RATE, 1 / RATE)
Rng = np.random.Generator
Wave = NDArray[np.float64]


def tone(hertz: Wave | float, amplitudes: tuple[float, ...] = (1.0,)) -> Wave:
    """Adds the harmonics of a pitch, up to half the sampling rate.

    Args:
        hertz: the pitch, one value or (8000,) if it glides.
        amplitudes: the amplitude of each harmonic.
    """
    pitch = np.broadcast_to(hertz, T.shape)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    before, harmonic, wave = np.zeros(RATE), np.sin(phase), np.zeros(RATE)
    twice = 2 * np.cos(phase)
    for amplitude in amplitudes[: int((RATE / 2 - 1) // pitch.max())]:
        wave += amplitude * harmonic
        before, harmonic = harmonic, twice * harmonic - before  # sin((k + 1) p) = 2 cos(p) sin(k p) - sin((k - 1) p)
    return wave


def noise(g: Rng, low: float = 0.0, high: float = RATE / 2, slope: float = 0.0) -> Wave:
    """Draws Gaussian noise of unit standard deviation.

    Args:
        g: the random stream.
        low: the lowest frequency in Hz.
        high: the frequency in Hz above which the noise fades.
        slope: the amplitude is proportional to f ** -slope.
    """
    gain = (1 / (1 + (HERTZ / max(high, 1)) ** 8)) * (low <= HERTZ) * np.maximum(HERTZ, 30) ** -slope
    wave = fft.irfft(fft.rfft(g.standard_normal(RATE)) * gain, RATE)
    return np.asarray(wave / wave.std())


def strikes(starts: ArrayLike, decay: float, sizes: ArrayLike = 1.0) -> Wave:
    """Makes an envelope of sudden onsets that decay exponentially.

    Args:
        starts: the times of the onsets, in [0, 1) s.
        decay: the time in seconds in which the envelope falls to 1/e.
        sizes: the height of all onsets or of each.
    """
    from scipy.signal import lfilter  # takes a second to load

    impulses = np.zeros(RATE)
    impulses[(np.asarray(starts) * RATE).astype(int)] = sizes
    return np.asarray(lfilter([1], [1, -np.exp(-1 / (decay * RATE))], impulses))


def repeat(g: Rng, seconds: float) -> Wave:
    """Draws times in [0, 1) s that are `seconds` apart, with a random phase."""
    return np.arange(g.uniform(0, seconds), 1, seconds)


def hump(start: float, length: float) -> Wave:
    """Makes an envelope: half a sine from `start` for `length` seconds."""
    return np.asarray(np.sin(np.pi * np.clip((T - start) / length, 0, 1)))


def mix(waves: Iterable[Wave]) -> Wave:
    """Adds waves."""
    return np.asarray(np.sum(list(waves), axis=0))


def check_audio_box(box: Box, task: str) -> None:
    """Checks that a sound can be rendered at the box.

    Args:
        box: of the encoder.
        task: the name for the error message.

    Raises:
        ModalityError: a box of another unit or shape.
    """
    if (box.unit, len(box.shape)) not in (("log-mel", 3), ("fbank", 3), ("waveform", 2)) or box.shape[0] != 1:
        allowed = "log-mel or fbank (1, mels, frames) or waveform (1, samples)"
        raise ModalityError(f"{task} draws {allowed}, not a box of {box.unit} {box.shape}")


def render_sound(wave: Wave, box: Box) -> np.ndarray:
    """Renders a clip of one second, (8000,) in [-1, 1], at the box, in [0, 1]."""
    if box.unit == "log-mel":
        return logmel(wave, RATE, box)
    if box.unit == "fbank":
        mel = preprocess.render_audio(torch.from_numpy(wave[None]).float(), RATE, box)[0].numpy()
        return np.asarray((mel - box.low) / (box.high - box.low))
    rate = box.rate or box.shape[1]
    if rate != RATE:
        from scipy.signal import resample  # takes a second to load

        wave = np.clip(resample(wave, rate), -1, 1)
    if rate != box.shape[1]:
        wave = window(wave, box.shape[1], box.fit)
    return np.asarray(np.round((wave[None] + 1) / 2 * 65535) / 65535)


class Synthesised(ABC):
    """A task of synthetic sounds, which gives corruptions the waveform before the front end (`inputs.Recorded`)."""

    @abstractmethod
    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Renders examples start..stop-1 at the box."""

    @abstractmethod
    def draw_sounds(self, box: Box, start: int, stop: int, split: Split) -> list[Wave]:
        """Draws the sounds start..stop-1, (8000,) in [-1, 1] each. Raises: ModalityError, for a box of no sound."""

    def rate_of(self, box: Box) -> int:
        """Samples a second of `waves`."""
        return (box.rate or box.shape[1]) if box.unit == "waveform" else RATE

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        """Draws sounds before the front end, (B, 1, samples) float64 in [0, 1]. Raises: ModalityError."""
        if box.unit == "waveform":
            return (self.load(box, start, stop, split).x.double() - box.low) / (box.high - box.low)
        sounds = self.draw_sounds(box, start, stop, split)
        return torch.from_numpy((np.stack(sounds)[:, None] + 1) / 2) if sounds else torch.empty(0, 1, RATE).double()

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        """(B, 1, samples) in [0, 1] -> (B, *box.shape) float32 in the box, as `load` makes it of sounds."""
        if box.unit == "waveform":
            return box.low + (box.high - box.low) * waves.float()
        return stack([render_sound(wave, box) for wave in 2 * waves[:, 0].numpy() - 1], box)
