"""The audio world: one second of one of 16 synthetic sounds, with coloured noise and a second event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.registry import register
from rlbench.tasks.sensors.sounds import bark, chop, crackle, step
from rlbench.tasks.synthesis import (
    RATE,
    Rng,
    Synthesised,
    T,
    Wave,
    check_audio_box,
    hump,
    mix,
    noise,
    render_sound,
    repeat,
    strikes,
    tone,
)
from rlbench.tasks.world import World


def _siren(g: Rng) -> Wave:
    wail = np.sin(2 * np.pi * (g.uniform(1.2, 2.4) * T + g.random()))
    return tone(g.uniform(750, 1100) * (1 + g.uniform(0.3, 0.45) * wail), (1, 0.5, 0.3))


def _bell(g: Rng) -> Wave:
    strike, pitch = g.uniform(0, 0.35), g.uniform(350, 700)
    partials = ((0.5, 0.6), (1, 1), (1.19, 0.8), (1.5, 0.5), (2, 0.9), (2.74, 0.6), (3.76, 0.4))
    return mix(a * strikes(strike, 0.5 / ratio**0.5) * tone(ratio * pitch) for ratio, a in partials)


def _engine(g: Rng) -> Wave:
    pitch: Wave = g.uniform(45, 80) * (1 + g.uniform(-0.1, 0.1) * T)
    throb: Wave = 1 + 0.3 * np.sin(2 * np.pi * g.uniform(3, 6) * T)
    return throb * tone(pitch, tuple(float(k) ** -0.6 for k in range(1, 13)))


def _rain(g: Rng) -> Wave:
    drops = np.where(g.random(RATE) < 0.02, g.standard_normal(RATE), 0)
    return np.asarray(0.7 * noise(g, g.uniform(900, 1400), slope=-0.3) + drops / drops.std())


def _bird(g: Rng) -> Wave:
    chirps, way = np.zeros(RATE), g.choice((-1, 1))
    for start in np.arange(g.uniform(0, 0.12), 0.92, g.uniform(0.14, 0.22)):
        length = g.uniform(0.07, 0.11)
        sweep = np.clip((T - start) / length, 0, 1) - 0.5
        chirps += hump(start, length) * tone(g.uniform(2500, 3000) * (1 + way * 0.4 * sweep))
    return chirps


def _alarm(g: Rng) -> Wave:
    gate = np.sin(2 * np.pi * (g.uniform(3, 5) * T + g.random())) > 0
    return gate * tone(g.uniform(1000, 1700), (1, 0.2, 0.4))


def _whistle(g: Rng) -> Wave:
    trill = np.sin(2 * np.pi * g.uniform(18, 26) * T)
    envelope = hump(g.uniform(0, 0.2), g.uniform(0.7, 0.8)) ** 0.3
    return envelope * tone(g.uniform(1900, 2600) * (1 + 0.05 * trill)) * (1 + 0.4 * trill)


def _clock(g: Rng) -> Wave:
    return strikes(repeat(g, g.uniform(0.16, 0.24)), 0.008) * tone(g.uniform(2200, 3200))


def _waves(g: Rng) -> Wave:
    swell = np.sin(np.pi * (T + g.random())) ** 4
    return (swell**2) * noise(g, 100, 3500) + (0.1 + swell) * noise(g, 60, 700)


def _horn(g: Rng) -> Wave:
    chord = g.uniform(240, 330) * np.array((1, 1.19, 1.5, 1.78))
    return mix(tone(float(pitch), (1, 0.8, 0.6, 0.4)) for pitch in chord) * hump(-0.1, 1.2) ** 0.3


def _cat(g: Rng) -> Wave:
    start, length = g.uniform(0, 0.25), g.uniform(0.6, 0.75)
    pitch = g.uniform(480, 620) * (1 + 0.5 * hump(start, length))
    return hump(start, length) ** 0.7 * tone(pitch, (0.7, 1, 0.8, 0.5, 0.3))


def _telephone(g: Rng) -> Wave:
    hammer = np.clip(np.sin(2 * np.pi * g.uniform(20, 26) * T), 0, None)
    ring = hammer * (tone(g.uniform(1000, 1250)) + tone(g.uniform(1400, 1700)) + 0.7 * tone(g.uniform(2500, 3200)))
    start = g.uniform(0, 0.3)
    return ring * ((start < T) & (start + g.uniform(0.45, 0.6) > T))


SOUNDS: dict[str, Callable[[Rng], Wave]] = {
    "siren wailing": _siren,
    "dog barking": bark,
    "bell tolling": _bell,
    "engine running": _engine,
    "rain falling": _rain,
    "bird chirping": _bird,
    "footsteps": step,
    "alarm beeping": _alarm,
    "helicopter flying": chop,
    "whistle blowing": _whistle,
    "fire crackling": crackle,
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
class AudioWorld(World, Synthesised):
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
        wave += 10 ** (-snr / 20) * noise(g, slope=g.uniform(0, 1.2))
        return np.asarray(wave * (g.uniform(0.4, 1) / np.abs(wave).max()))

    def render(self, g: Rng, label: int, box: Box) -> np.ndarray:
        """Renders the clip as log-mel, (1, mels, frames), or as a waveform, (1, samples), in [0, 1] in 16-bit steps.

        Raises: ModalityError for a box of another unit or shape.
        """
        check_audio_box(box, self.name)
        return render_sound(self.draw_clip(g, label), box)

    def draw_sounds(self, box: Box, start: int, stop: int, split: Split) -> list[Wave]:
        check_audio_box(box, self.name)
        return [self.draw_clip(g, label) for g, label in self.draw_examples(start, stop, split)]
