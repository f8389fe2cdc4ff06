"""The audio world: one second of one of 16 synthetic sounds, with coloured noise and a second event."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import fft, signal
from torch import Tensor

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.errors import ModalityError
from rlbench.core.media import preprocess
from rlbench.core.media.log_mel import logmel
from rlbench.core.media.sounds import window
from rlbench.core.registry import register
from rlbench.tasks.batch import stack
from rlbench.tasks.world import World

RATE = 8000
T = np.arange(RATE) / RATE
HERTZ = fft.rfftfreq(RATE, 1 / RATE)
Rng = np.random.Generator
Wave = NDArray[np.float64]


def _tone(hertz: Wave | float, amplitudes: tuple[float, ...] = (1.0,)) -> Wave:
    """Adds the harmonics of a pitch that may glide, up to half the sampling rate."""
    pitch = np.broadcast_to(hertz, T.shape)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    before, harmonic, wave = np.zeros(RATE), np.sin(phase), np.zeros(RATE)
    twice = 2 * np.cos(phase)
    for amplitude in amplitudes[: int((RATE / 2 - 1) // pitch.max())]:
        wave += amplitude * harmonic
        before, harmonic = harmonic, twice * harmonic - before  # sin((k + 1) p) = 2 cos(p) sin(k p) - sin((k - 1) p)
    return wave


def _noise(g: Rng, low: float = 0.0, high: float = RATE / 2, slope: float = 0.0) -> Wave:
    """Draws Gaussian noise between two frequencies with amplitude f ** -slope and unit standard deviation."""
    gain = (1 / (1 + (HERTZ / max(high, 1)) ** 8)) * (low <= HERTZ) * np.maximum(HERTZ, 30) ** -slope
    wave = fft.irfft(fft.rfft(g.standard_normal(RATE)) * gain, RATE)
    return np.asarray(wave / wave.std())


def _strikes(starts: ArrayLike, decay: float, sizes: ArrayLike = 1.0) -> Wave:
    """Makes an envelope with sudden onsets at times in [0, 1) s, each with an exponential decay."""
    impulses = np.zeros(RATE)
    impulses[(np.asarray(starts) * RATE).astype(int)] = sizes
    return np.asarray(signal.lfilter([1], [1, -np.exp(-1 / (decay * RATE))], impulses))


def _every(g: Rng, seconds: float) -> Wave:
    """Draws regular times with a random phase."""
    return np.arange(g.uniform(0, seconds), 1, seconds)


def _hump(start: float, length: float) -> Wave:
    """Makes an envelope: half a sine from `start` for `length` seconds."""
    return np.asarray(np.sin(np.pi * np.clip((T - start) / length, 0, 1)))


def _sum(waves: Iterable[Wave]) -> Wave:
    return np.asarray(np.sum(list(waves), axis=0))


def _siren(g: Rng) -> Wave:
    wail = np.sin(2 * np.pi * (g.uniform(1.2, 2.4) * T + g.random()))
    return _tone(g.uniform(750, 1100) * (1 + g.uniform(0.3, 0.45) * wail), (1, 0.5, 0.3))


def _dog(g: Rng) -> Wave:
    barks, breath = np.zeros(RATE), 0.4 * _noise(g, 300, 2000)
    for start in np.arange(g.uniform(0.02, 0.2), 0.85, g.uniform(0.28, 0.4)):
        pitch = g.uniform(380, 520) * (0.6 + 0.4 * np.exp(-np.clip(T - start, 0, None) / 0.08))
        barks += _hump(start, g.uniform(0.11, 0.16)) * (_tone(pitch, (1, 0.9, 0.8, 0.5, 0.3)) + breath)
    return barks


def _bell(g: Rng) -> Wave:
    strike, pitch = g.uniform(0, 0.35), g.uniform(350, 700)
    partials = ((0.5, 0.6), (1, 1), (1.19, 0.8), (1.5, 0.5), (2, 0.9), (2.74, 0.6), (3.76, 0.4))
    return _sum(a * _strikes(strike, 0.5 / ratio**0.5) * _tone(ratio * pitch) for ratio, a in partials)


def _engine(g: Rng) -> Wave:
    pitch: Wave = g.uniform(45, 80) * (1 + g.uniform(-0.1, 0.1) * T)
    throb: Wave = 1 + 0.3 * np.sin(2 * np.pi * g.uniform(3, 6) * T)
    return throb * _tone(pitch, tuple(float(k) ** -0.6 for k in range(1, 13)))


def _rain(g: Rng) -> Wave:
    drops = np.where(g.random(RATE) < 0.02, g.standard_normal(RATE), 0)
    return np.asarray(0.7 * _noise(g, g.uniform(900, 1400), slope=-0.3) + drops / drops.std())


def _bird(g: Rng) -> Wave:
    chirps, way = np.zeros(RATE), g.choice((-1, 1))
    for start in np.arange(g.uniform(0, 0.12), 0.92, g.uniform(0.14, 0.22)):
        length = g.uniform(0.07, 0.11)
        sweep = np.clip((T - start) / length, 0, 1) - 0.5
        chirps += _hump(start, length) * _tone(g.uniform(2500, 3000) * (1 + way * 0.4 * sweep))
    return chirps


def _footsteps(g: Rng) -> Wave:
    return _strikes(_every(g, g.uniform(0.3, 0.42)), 0.035) * _noise(g, 60, g.uniform(250, 450))


def _alarm(g: Rng) -> Wave:
    gate = np.sin(2 * np.pi * (g.uniform(3, 5) * T + g.random())) > 0
    return gate * _tone(g.uniform(1000, 1700), (1, 0.2, 0.4))


def _helicopter(g: Rng) -> Wave:
    chop = np.clip(np.sin(2 * np.pi * (g.uniform(10, 15) * T + g.random())), 0, None) ** 3
    return (0.1 + chop) * _noise(g, 60, g.uniform(800, 1400), slope=0.4)


def _whistle(g: Rng) -> Wave:
    trill = np.sin(2 * np.pi * g.uniform(18, 26) * T)
    envelope = _hump(g.uniform(0, 0.2), g.uniform(0.7, 0.8)) ** 0.3
    return envelope * _tone(g.uniform(1900, 2600) * (1 + 0.05 * trill)) * (1 + 0.4 * trill)


def _fire(g: Rng) -> Wave:
    cracks = _strikes(g.random(14), 0.004, g.exponential(1, 14))
    return cracks * _noise(g, 500) + 0.12 * _noise(g, 40, 300)


def _clock(g: Rng) -> Wave:
    return _strikes(_every(g, g.uniform(0.16, 0.24)), 0.008) * _tone(g.uniform(2200, 3200))


def _waves(g: Rng) -> Wave:
    swell = np.sin(np.pi * (T + g.random())) ** 4
    return (swell**2) * _noise(g, 100, 3500) + (0.1 + swell) * _noise(g, 60, 700)


def _horn(g: Rng) -> Wave:
    chord = g.uniform(240, 330) * np.array((1, 1.19, 1.5, 1.78))
    return _sum(_tone(float(pitch), (1, 0.8, 0.6, 0.4)) for pitch in chord) * _hump(-0.1, 1.2) ** 0.3


def _cat(g: Rng) -> Wave:
    start, length = g.uniform(0, 0.25), g.uniform(0.6, 0.75)
    pitch = g.uniform(480, 620) * (1 + 0.5 * _hump(start, length))
    return _hump(start, length) ** 0.7 * _tone(pitch, (0.7, 1, 0.8, 0.5, 0.3))


def _telephone(g: Rng) -> Wave:
    hammer = np.clip(np.sin(2 * np.pi * g.uniform(20, 26) * T), 0, None)
    ring = hammer * (_tone(g.uniform(1000, 1250)) + _tone(g.uniform(1400, 1700)) + 0.7 * _tone(g.uniform(2500, 3200)))
    start = g.uniform(0, 0.3)
    return ring * ((start < T) & (start + g.uniform(0.45, 0.6) > T))


SOUNDS: dict[str, Callable[[Rng], Wave]] = {
    "siren wailing": _siren,
    "dog barking": _dog,
    "bell tolling": _bell,
    "engine running": _engine,
    "rain falling": _rain,
    "bird chirping": _bird,
    "footsteps": _footsteps,
    "alarm beeping": _alarm,
    "helicopter flying": _helicopter,
    "whistle blowing": _whistle,
    "fire crackling": _fire,
    "clock ticking": _clock,
    "waves breaking": _waves,
    "train hooting": _horn,
    "cat meowing": _cat,
    "telephone ringing": _telephone,
}


def _draw_sound(g: Rng, label: int) -> Wave:
    """Draws a sound, (8000,), of unit root mean square, so that signal-to-noise ratios are comparable."""
    wave = list(SOUNDS.values())[label](g)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))


@register("task", "audio-world")
@dataclass(frozen=True, kw_only=True)
class AudioWorld(World):
    """Procedural sounds of 16 kinds: 1 s at 8 kHz, as log-mel or waveform.

    Synthesis is at 8 kHz for any box. A waveform box of n samples gets the clip resampled to n Hz, or to its own rate
    and cut or centred in silence; a log-mel box by `log_mel.logmel`; an fbank box by `preprocess.render_audio`.
    Corruptions can change the waveform (`inputs.Recorded`). Web: signal-to-noise ratio -4 to 14 dB, second event at
    gain 0 to 0.2. Sensor: -15 to 3 dB, gain 0 to 0.5.
    """

    name: ClassVar[str] = "audio-world"
    version: ClassVar[int] = 1
    world_modality: ClassVar[Modality] = "audio"
    world_classes: ClassVar[tuple[Label, ...]] = tuple(Label(name.replace(" ", "_"), name) for name in SOUNDS)
    world_templates: ClassVar[tuple[str, ...]] = (
        "the sound of {}.",
        "a recording of {}.",
        "an audio clip of {}.",
        "a noisy recording of {}.",
        "this is {}.",
        "you can hear {}.",
        "{} in the background.",
    )

    def draw_clip(self, g: Rng, label: int) -> Wave:
        """Draws a clip, (8000,) in [-1, 1]: a sound, a softer one of another class, and noise with a random slope."""
        web = self.domain == "web"
        snr, gain = g.uniform(*((-4, 14) if web else (-15, 3))), g.uniform(0, 0.2 if web else 0.5)
        other = (label + g.integers(1, len(SOUNDS))) % len(SOUNDS)
        wave = _draw_sound(g, label) + gain * _draw_sound(g, int(other))
        wave += 10 ** (-snr / 20) * _noise(g, slope=g.uniform(0, 1.2))
        return np.asarray(wave * (g.uniform(0.4, 1) / np.abs(wave).max()))

    def render(self, g: Rng, label: int, box: Box) -> np.ndarray:
        """Renders the clip as log-mel, (1, mels, frames), or as a waveform, (1, samples), in [0, 1] in 16-bit steps.

        Raises: ModalityError for a box of another unit or shape.
        """
        _check(box)
        return _render(self.draw_clip(g, label), box)

    def rate_of(self, box: Box) -> int:
        """Samples a second of `waves`."""
        return (box.rate or box.shape[1]) if box.unit == "waveform" else RATE

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        """Draws clips before the front end, (B, 1, samples) float64 in [0, 1]. Raises: ModalityError."""
        _check(box)
        if box.unit == "waveform":
            return (self.load(box, start, stop, split).x.double() - box.low) / (box.high - box.low)
        clips = [self.draw_clip(g, label) for g, label in self.draw_examples(start, stop, split)]
        return torch.from_numpy((np.stack(clips)[:, None] + 1) / 2) if clips else torch.empty(0, 1, RATE).double()

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        """(B, 1, samples) in [0, 1] -> (B, *box.shape) float32 in the box, as `load` makes it of clips."""
        if box.unit == "waveform":
            return box.low + (box.high - box.low) * waves.float()
        return stack([_render(wave, box) for wave in 2 * waves[:, 0].numpy() - 1], box)


def _check(box: Box) -> None:
    if (box.unit, len(box.shape)) not in (("log-mel", 3), ("fbank", 3), ("waveform", 2)) or box.shape[0] != 1:
        allowed = "log-mel or fbank (1, mels, frames) or waveform (1, samples)"
        raise ModalityError(f"audio-world draws {allowed}, not a box of {box.unit} {box.shape}")


def _render(wave: Wave, box: Box) -> np.ndarray:
    """Renders a clip of one second at the box, in [0, 1]."""
    if box.unit == "log-mel":
        return logmel(wave, RATE, box)
    if box.unit == "fbank":
        mel = preprocess.render_audio(torch.from_numpy(wave[None]).float(), RATE, box)[0].numpy()
        return np.asarray((mel - box.low) / (box.high - box.low))
    rate = box.rate or box.shape[1]
    if rate != RATE:
        wave = np.clip(signal.resample(wave, rate), -1, 1)
    if rate != box.shape[1]:
        wave = window(wave, box.shape[1], box.fit)
    return np.asarray(np.round((wave[None] + 1) / 2 * 65535) / 65535)
