"""The sixteen kinds of things, and what each sensor sees or hears of them.

Each sensor has two pairs of kinds with one and the same drawing, motion or sound, which it can't tell apart: one among
the ten seen classes and one among the six unseen ones. Every other sensor tells these two apart.

| sensor | seen | unseen |
| --- | --- | --- |
| image | motorcycle, bicycle: two wheels and a rider | ambulance, bus: a van |
| thermal | drone, bird: a warm speck | horse, cow: a warm trunk on legs |
| audio | car, motorcycle: a petrol engine | train, waterfall: a roar |
| video | person, dog: a walker | train, bus: a long vehicle |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlbench.tasks.sensors import drawings as d
from rlbench.tasks.sensors import motions as m
from rlbench.tasks.sensors import sounds
from rlbench.tasks.synthesis import Rng, Wave


@dataclass(frozen=True)
class Picture:
    """An outline whose parts are painted.

    Attributes:
        outline: gives the parts, later ones in front.
        levels: one per part: light relative to the thing's colour, or temperature from cold (0) to the hottest (1).
    """

    outline: d.Outline
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Kind:
    """A class: its name, and what each sensor gets of it."""

    name: str
    image: Picture
    thermal: Picture
    video: m.Motion
    audio: Callable[[Rng], Wave]


_BIKE = Picture(d.draw_two_wheeler, (1.0, 0.9, 0.8, 0.65, 0.5))
_VAN = Picture(d.draw_van, (1.0, 0.2, 1.0, 1.0, 0.7, 0.4))
_SPECK = Picture(d.draw_speck, (0.4, 0.9))
_HOOFED = Picture(d.draw_hoofed, (0.45, 0.55, 0.8, 0.75, 0.9))
_WALK, _GLIDE = m.Motion(m.GROUND, m.walk), m.Motion(m.GROUND, m.glide)

KINDS: tuple[Kind, ...] = (
    Kind("drone", Picture(d.draw_drone, (0.6, 0.9, 1.0, 0.9)), _SPECK, m.Motion(m.SKY, m.hover), sounds.buzz),
    Kind(
        "helicopter",
        Picture(d.draw_helicopter, (0.7, 0.9, 1.0, 0.3, 0.8, 1.0)),
        Picture(d.draw_helicopter, (0.2, 0.35, 0.5, 0.2, 0.3, 1.0)),
        m.Motion(m.SKY, m.chop),
        sounds.chop,
    ),
    Kind(
        "airplane",
        Picture(d.draw_airplane, (0.85, 0.85, 1.0, 0.6)),
        Picture(d.draw_airplane, (0.35, 0.35, 0.5, 1.0)),
        m.Motion(m.SKY, m.cruise),
        sounds.whine,
    ),
    Kind("bird", Picture(d.draw_bird, (0.9, 0.8, 1.0, 0.5)), _SPECK, m.Motion(m.SKY, m.flap), sounds.chirp),
    Kind(
        "car",
        Picture(d.draw_car, (1.0, 0.2, 1.0, 0.5, 0.8)),
        Picture(d.draw_car, (0.4, 0.1, 0.95, 0.65, 0.2)),
        m.Motion(m.GROUND, m.drive),
        sounds.engine,
    ),
    Kind(
        "motorcycle",
        _BIKE,
        Picture(d.draw_two_wheeler, (0.6, 0.45, 1.0, 0.5, 0.6)),
        m.Motion(m.GROUND, m.race),
        sounds.engine,
    ),
    Kind(
        "bicycle",
        _BIKE,
        Picture(d.draw_two_wheeler, (0.2, 0.2, 0.25, 0.8, 0.95)),
        m.Motion(m.GROUND, m.pedal),
        sounds.ring,
    ),
    Kind(
        "dog",
        Picture(d.draw_dog, (0.9, 0.85, 1.0, 1.0, 0.6, 0.7)),
        Picture(d.draw_dog, (0.45, 0.6, 0.7, 0.95, 0.7, 0.8)),
        _WALK,
        sounds.bark,
    ),
    Kind(
        "person",
        Picture(d.draw_person, (0.6, 0.9, 1.0, 0.8, 0.8)),
        Picture(d.draw_person, (0.5, 0.55, 0.65, 0.9, 1.0)),
        _WALK,
        sounds.step,
    ),
    Kind(
        "campfire",
        Picture(d.draw_campfire, (0.5, 0.9, 1.2)),
        Picture(d.draw_campfire, (0.4, 0.8, 1.0)),
        m.Motion(m.GROUND, m.flicker),
        sounds.crackle,
    ),
    Kind(
        "train",
        Picture(d.draw_train, (0.5, 0.6, 1.0, 0.3, 0.6, 0.9)),
        Picture(d.draw_train, (0.2, 0.2, 0.4, 0.6, 0.75, 1.0)),
        _GLIDE,
        sounds.rumble,
    ),
    Kind(
        "horse",
        Picture(d.draw_horse, (0.6, 0.9, 1.0, 1.0, 1.0, 0.4)),
        _HOOFED,
        m.Motion(m.GROUND, m.gallop),
        sounds.clatter,
    ),
    Kind(
        "cow",
        Picture(d.draw_cow, (0.9, 0.9, 1.0, 1.0, 0.9, 0.5, 0.3)),
        _HOOFED,
        m.Motion(m.GROUND, m.graze),
        sounds.moo,
    ),
    Kind(
        "ambulance",
        _VAN,
        Picture(d.draw_van, (0.35, 0.1, 1.0, 0.35, 0.9, 0.6)),
        m.Motion(m.GROUND, m.flash),
        sounds.wail,
    ),
    Kind("bus", _VAN, Picture(d.draw_van, (0.35, 0.65, 0.35, 1.0, 0.35, 0.6)), _GLIDE, sounds.rattle),
    Kind(
        "waterfall",
        Picture(d.draw_waterfall, (0.5, 1.0, 0.75, 0.9)),
        Picture(d.draw_waterfall, (0.75, 0.0, 0.15, 0.1)),
        m.Motion(m.GROUND, m.fall),
        sounds.rumble,
    ),
)
