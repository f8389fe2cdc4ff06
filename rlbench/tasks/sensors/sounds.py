"""What things sound like nearby: one second of sound each, of any loudness."""

from __future__ import annotations

import numpy as np

from rlbench.tasks.synthesis import RATE, Rng, T, Wave, hump, mix, noise, repeat, strikes, tone


def buzz(g: Rng) -> Wave:
    """Four rotors of a drone, slightly out of tune."""
    pitch = g.uniform(170, 250)
    return mix(tone(pitch * (1 + g.uniform(-0.03, 0.03)), (0.6, 1, 0.8, 0.6, 0.4, 0.3)) for _ in range(4))


def chop(g: Rng) -> Wave:
    """The rotor of a helicopter."""
    beats = np.clip(np.sin(2 * np.pi * (g.uniform(10, 15) * T + g.random())), 0, None) ** 3
    return (0.1 + beats) * noise(g, 60, g.uniform(800, 1400), slope=0.4)


def whine(g: Rng) -> Wave:
    """The turbines of an airplane: a whine that falls, and a hiss."""
    pitch: Wave = g.uniform(1300, 1900) * (1 - g.uniform(0.1, 0.3) * T)
    return 1.2 * tone(pitch, (1, 0.4)) + noise(g, 300, 2500, slope=0.3)


def chirp(g: Rng) -> Wave:
    """A bird."""
    chirps, way = np.zeros(RATE), g.choice((-1, 1))
    for start in np.arange(g.uniform(0, 0.12), 0.92, g.uniform(0.16, 0.24)):
        length = g.uniform(0.07, 0.11)
        sweep = np.clip((T - start) / length, 0, 1) - 0.5
        chirps += hump(start, length) * tone(g.uniform(2500, 3000) * (1 + way * 0.4 * sweep))
    return chirps


def engine(g: Rng) -> Wave:
    """A petrol engine, of a car or a motorcycle."""
    pitch: Wave = g.uniform(60, 110) * (1 + g.uniform(-0.2, 0.4) * T)
    throb: Wave = 1 + 0.3 * np.sin(2 * np.pi * g.uniform(3, 6) * T)
    return throb * tone(pitch, tuple(float(k) ** -0.5 for k in range(1, 15)))


def ring(g: Rng) -> Wave:
    """The bell of a bicycle, struck twice."""
    start, pitch = g.uniform(0, 0.4), g.uniform(1700, 2300)
    blows = strikes([start, start + g.uniform(0.14, 0.2)], 0.12)
    return blows * (tone(pitch) + 0.6 * tone(1.48 * pitch)) + 0.05 * strikes(repeat(g, 0.06), 0.004) * noise(g, 2000)


def bark(g: Rng) -> Wave:
    """A dog."""
    barks, breath = np.zeros(RATE), 0.4 * noise(g, 300, 2000)
    for start in np.arange(g.uniform(0.02, 0.2), 0.85, g.uniform(0.28, 0.4)):
        pitch = g.uniform(380, 520) * (0.6 + 0.4 * np.exp(-np.clip(T - start, 0, None) / 0.08))
        barks += hump(start, g.uniform(0.11, 0.16)) * (tone(pitch, (1, 0.9, 0.8, 0.5, 0.3)) + breath)
    return barks


def step(g: Rng) -> Wave:
    """The footsteps of a person."""
    return strikes(repeat(g, g.uniform(0.3, 0.42)), 0.035) * noise(g, 60, g.uniform(250, 450))


def crackle(g: Rng) -> Wave:
    """A fire."""
    cracks = strikes(g.random(14), 0.004, g.exponential(1, 14))
    return cracks * noise(g, 500) + 0.12 * noise(g, 40, 300)


def rumble(g: Rng) -> Wave:
    """A steady roar, of a train on its rails or of falling water."""
    swell: Wave = 1 + 0.2 * np.sin(2 * np.pi * (g.uniform(0.5, 1.5) * T + g.random()))
    return swell * noise(g, 80, g.uniform(1500, 2500), slope=0.2)


def clatter(g: Rng) -> Wave:
    """The hooves of a horse: pairs of hard knocks."""
    pairs = repeat(g, g.uniform(0.3, 0.4))
    knocks = np.concatenate([pairs, pairs[pairs < 0.88] + 0.1])
    return strikes(knocks, 0.012) * tone(g.uniform(800, 1200), (1, 0.5, 0.3))


def moo(g: Rng) -> Wave:
    """A cow."""
    start, length = g.uniform(0, 0.15), g.uniform(0.75, 0.85)
    pitch = g.uniform(130, 180) * (1 + 0.35 * hump(start, length))
    return hump(start, length) ** 0.5 * tone(pitch, (0.4, 0.7, 1, 1, 0.7, 0.4, 0.3))


def wail(g: Rng) -> Wave:
    """The siren of an ambulance: two tones in turn."""
    high = np.sin(2 * np.pi * (g.uniform(1.2, 2.2) * T + g.random())) > 0
    return tone(g.uniform(600, 800) * np.where(high, 1.33, 1), (1, 0.6, 0.4))


def rattle(g: Rng) -> Wave:
    """The diesel engine of a bus: quick dull knocks."""
    knocks = strikes(repeat(g, g.uniform(0.03, 0.045)), 0.01)
    return knocks * noise(g, 100, 900) + 0.3 * tone(g.uniform(45, 60), (1, 0.8, 0.6))
