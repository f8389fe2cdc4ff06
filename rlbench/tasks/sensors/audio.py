"""The sound of a scene: one second in which distance, wind, traffic and other things may drown the thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.synthesis import Rng, T, Wave, noise, tone
from rlbench.tasks.world import Domain


@dataclass(frozen=True)
class _Microphone:
    """A domain's microphone and surroundings; loudness is relative to the thing nearby.

    Attributes:
        hiss: loudness of white noise.
        other: largest loudness of a second thing, at the same distance.
        far: loudness of a thing at distance 1.
    """

    hiss: float
    other: float
    far: float


_MICROPHONES: dict[Domain, _Microphone] = {
    "web": _Microphone(0.05, 0.2, 0.5),
    "sensor": _Microphone(0.2, 0.5, 0.3),
}


def draw_sound(scene: Scene, domain: Domain) -> Wave:
    """Draws the sound of the scene.

    Args:
        scene: what is there.
        domain: decides the microphone.

    Returns:
        (8000,) float64 in [-1, 1], one second.
    """
    microphone, g, kind = _MICROPHONES[domain], scene.make_stream("audio"), KINDS[scene.label]
    loudness = microphone.far**scene.distance
    wave = loudness * _level(kind.audio(g))
    # A stream of its own, so that the surroundings are the same for every class.
    g = scene.make_stream("surroundings")
    other = KINDS[g.integers(len(KINDS))]
    wave += g.uniform(0, microphone.other) * loudness * _level(other.audio(g))
    wave += scene.traffic * _level(_draw_traffic(g)) + scene.wind * _draw_wind(g)
    wave += microphone.hiss * g.standard_normal(len(T))
    return np.asarray(wave * (g.uniform(0.4, 1) / np.abs(wave).max()))


def _level(wave: Wave) -> Wave:
    """Scales a sound to unit root mean square."""
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))


def _draw_traffic(g: Rng) -> Wave:
    """A low hum of engines and tyres that comes and goes."""
    pass_by: Wave = 1 + 0.5 * np.sin(2 * np.pi * (g.uniform(0.3, 1) * T + g.random()))
    return pass_by * (0.5 * tone(g.uniform(50, 120), (1, 0.7, 0.5, 0.4, 0.3)) + noise(g, 40, 900, slope=0.6))


def _draw_wind(g: Rng) -> Wave:
    """Noise with most power at low frequencies, in gusts."""
    gust: Wave = 1 + 0.6 * np.sin(2 * np.pi * (g.uniform(0.4, 1.5) * T + g.random()))
    return gust * noise(g, slope=g.uniform(0.3, 1.2))
