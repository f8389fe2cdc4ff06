"""Sixteen kinds of object in pictures of a thermal camera, drawn as parts with different heat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.ndimage import gaussian_filter

from rlbench.core import Box, Label, Modality
from rlbench.core.errors import ModalityError
from rlbench.core.registry import register
from rlbench.tasks.shapes import SENSOR, Frame, Parts, cells, grid, pose, quantise, union
from rlbench.tasks.world import Domain, World

Thing = Callable[[Frame, np.random.Generator], Parts]


@dataclass(frozen=True)
class _Camera:
    """A domain's camera and surroundings; temperatures are fractions of the range.

    Attributes:
        noise: standard deviation per sensor cell (NETD).
        columns: standard deviation per column (fixed pattern).
        amplitude: range of the hottest part's contrast.
        blobs: number of warm blobs of clutter.
        blob_heat: highest temperature of a blob.
        weather: relative spread of every part's heat.
        blur: the blur of the optics, in sensor cells.
        black_hot: probability of inverted polarity.
    """

    noise: float
    columns: float
    amplitude: tuple[float, float]
    blobs: int
    blob_heat: float
    weather: float
    blur: float
    black_hot: float


_CAMERAS: dict[Domain, _Camera] = {
    "web": _Camera(0.01, 0.0, (0.5, 0.85), 1, 0.15, 0.15, 0.7, 0.08),
    "sensor": _Camera(0.03, 0.02, (0.3, 0.65), 2, 0.35, 0.35, 0.85, 0.25),
}


def _person(f: Frame, g: np.random.Generator) -> Parts:
    step, swing = g.uniform(0.1, 0.3), g.uniform(0.2, 0.5)
    legs = f.strokes(0.11, (0, -0.15, -step, -0.9), (0, -0.15, step, -0.9))
    arms = f.strokes(0.09, (0, 0.35, -swing, -0.15), (0, 0.35, swing, -0.15))
    hands = union(f.disc(-swing, -0.18, 0.1), f.disc(swing, -0.18, 0.1))
    torso, head = f.strokes(0.19, (0, 0.3, 0, -0.1)), f.disc(0, 0.72, 0.2)
    return [(legs, 0.5), (arms, 0.55), (torso, 0.65), (hands, 0.9), (head, 1.0)]


def _dog(f: Frame, g: np.random.Generator) -> Parts:
    step, wag = g.uniform(-0.08, 0.08), g.uniform(0.3, 0.6)
    hind, fore = (-0.45, -0.05, -0.5 - step, -0.65), (0.35, -0.05, 0.4 + step, -0.65)
    legs = f.strokes(0.07, hind, fore, (-0.35, -0.05, -0.28 + step, -0.65), (0.25, -0.05, 0.2 - step, -0.65))
    tail = f.strokes(0.06, (-0.5, 0.1, -0.85, wag))
    trunk, head = f.strokes(0.2, (-0.38, 0, 0.32, 0.02)), f.strokes(0.15, (0.5, 0.38, 0.62, 0.38))
    ear, nose = f.strokes(0.06, (0.42, 0.5, 0.36, 0.68)), f.strokes(0.07, (0.7, 0.32, 0.9, 0.28))
    return [(tail, 0.45), (legs, 0.6), (trunk, 0.7), (head, 0.95), (ear, 0.7), (nose, 0.8)]


def _car(f: Frame, g: np.random.Generator) -> Parts:
    cabin = f.convex((-0.6, 0), (0.35, 0), (0.12, 0.42), (-0.42, 0.42))
    body = f.block(0, -0.12, 0.92, 0.2)
    windows = union(f.block(-0.27, 0.19, 0.13, 0.12), f.block(0.06, 0.19, 0.12, 0.12))
    engine, wheels = f.block(0.66, -0.08, 0.22, 0.14), union(f.disc(-0.5, -0.38, 0.2), f.disc(0.5, -0.38, 0.2))
    hubs = union(f.disc(-0.5, -0.38, 0.08), f.disc(0.5, -0.38, 0.08))
    return [(union(cabin, body), 0.4), (windows, 0.0), (engine, g.uniform(0.8, 1)), (wheels, 0.7), (hubs, 0.2)]


def _cup(f: Frame, g: np.random.Generator) -> Parts:
    level = g.uniform(0.05, 0.25)
    handle = f.ring(0.52, -0.2, 0.22, 0.07)
    wall = f.convex((-0.38, -0.8), (0.38, -0.8), (0.48, 0.35), (-0.48, 0.35))
    coffee = np.maximum(wall + 0.07, f.y - level)
    wisps = f.strokes(
        0.06, (-0.2, 0.5, -0.1, 0.7), (-0.1, 0.7, -0.2, 0.9), (0.15, 0.5, 0.25, 0.7), (0.25, 0.7, 0.15, 0.9)
    )
    return [(wisps, 0.35), (handle, 0.45), (wall, 0.6), (coffee, 1.0)]


def _building(f: Frame, g: np.random.Generator) -> Parts:
    floors = (0.6, 0.2, -0.2, -0.6)
    lit = g.permutation(12)[:9]
    windows = [f.block((-0.34, 0.0, 0.34)[k % 3], floors[k // 3], 0.11, 0.12) for k in lit]
    roof = f.block(g.uniform(-0.3, 0.3), 0.95, 0.12, 0.12)
    return [(roof, 0.7), (f.block(0, -0.05, 0.58, 0.92), 0.3), (union(*windows), 1.0)]


def _campfire(f: Frame, g: np.random.Generator) -> Parts:
    lean, tall = g.uniform(-0.2, 0.2), g.uniform(0.6, 0.9)
    logs = f.strokes(0.1, (-0.65, -0.8, 0.5, -0.45), (0.65, -0.8, -0.5, -0.45))
    outer = union(f.disc(0, -0.25, 0.4), f.convex((-0.38, -0.15), (0.38, -0.15), (lean, tall)))
    tongue = f.convex((0.05, -0.1), (0.42, -0.2), (0.5, 0.4))
    core = union(f.disc(0, -0.28, 0.2), f.convex((-0.18, -0.2), (0.18, -0.2), (lean / 2, tall / 2)))
    return [(logs, 0.4), (union(outer, tongue), 0.7), (core, 1.0)]


def _pipe(f: Frame, g: np.random.Generator) -> Parts:
    bend, height = g.uniform(-0.1, 0.4), g.uniform(0.2, 0.5)
    tube = f.path(0.17, (-1.2, height), (bend, height), (bend, -1.2))
    flanges = f.strokes(
        0.08, (bend - 0.45, height - 0.3, bend - 0.45, height + 0.3), (bend - 0.3, -0.4, bend + 0.3, -0.4)
    )
    return [(tube, 0.85), (flanges, 0.35)]


def _airplane(f: Frame, g: np.random.Generator) -> Parts:
    sweep = g.uniform(0.25, 0.45)
    wings = f.strokes(0.1, (0.15, 0, 0.15 - sweep, 0.85), (0.15, 0, 0.15 - sweep, -0.85))
    tail = f.strokes(0.07, (-0.7, 0, -0.85, 0.35), (-0.7, 0, -0.85, -0.35))
    engines = union(f.oval(0.1, 0.38, 0.16, 0.1), f.oval(0.1, -0.38, 0.16, 0.1))
    return [(wings, 0.4), (tail, 0.4), (f.strokes(0.13, (-0.8, 0, 0.8, 0)), 0.6), (engines, 1.0)]


def _bicycle(f: Frame, g: np.random.Generator) -> Parts:
    crank = g.uniform(-0.1, 0.05)
    wheels = union(f.ring(-0.52, -0.25, 0.38, 0.065), f.ring(0.52, -0.25, 0.38, 0.065))
    triangle = ((-0.52, -0.25, crank, -0.25), (crank, -0.25, 0.38, 0.3), (-0.22, 0.3, 0.38, 0.3))
    frame = f.strokes(
        0.055, *triangle, (-0.52, -0.25, -0.22, 0.3), (-0.22, 0.4, crank, -0.25), (0.35, 0.45, 0.52, -0.25)
    )
    seat, bar = f.strokes(0.07, (-0.35, 0.42, -0.1, 0.42)), f.strokes(0.06, (0.35, 0.5, 0.55, 0.55))
    return [(frame, 0.65), (wheels, 0.85), (seat, 1.0), (bar, 0.8)]


def _solar_panel(f: Frame, g: np.random.Generator) -> Parts:
    slant, column, row = g.uniform(0.1, 0.3), g.integers(4), g.integers(3)
    u = f.x - slant * f.y
    tilted = Frame(u, f.y, f.pixel)
    lattice = [tilted.block(at, 0.15, 0.035, 0.6) for at in (-0.45, 0.0, 0.45)]
    lattice += [tilted.block(0, at, 0.9, 0.035) for at in (-0.05, 0.35)]
    hot = tilted.block(-0.675 + 0.45 * column, -0.25 + 0.4 * row, 0.16, 0.14)
    legs = f.strokes(0.06, (-0.5, -0.4, -0.6, -0.85), (0.5, -0.4, 0.4, -0.85))
    return [(legs, 0.3), (tilted.block(0, 0.15, 0.9, 0.6), 0.6), (union(*lattice), 0.05), (hot, 1.0)]


def _drone(f: Frame, g: np.random.Generator) -> Parts:
    flat = g.uniform(0.4, 0.6)
    tips = [(sx * 0.68, sy * flat) for sx in (-1, 1) for sy in (-1, 1)]
    rotors = union(*(f.ring(tx, ty, 0.26, 0.04) for tx, ty in tips))
    arms = f.strokes(0.06, *((0.0, 0.0, tx, ty) for tx, ty in tips))
    motors, body = union(*(f.disc(tx, ty, 0.13) for tx, ty in tips)), f.oval(0, 0, 0.27, 0.2)
    return [(rotors, 0.3), (arms, 0.45), (body, 0.65), (motors, 1.0)]


def _boat(f: Frame, g: np.random.Generator) -> Parts:
    stack = g.uniform(-0.35, -0.15)
    hull = f.convex((-0.65, -0.6), (0.55, -0.6), (0.95, -0.1), (-0.85, -0.1))
    cabin, window = f.block(0.05, 0.1, 0.42, 0.22), f.block(0.2, 0.14, 0.15, 0.08)
    smoke = f.path(0.1, (stack, 0.65), (stack - 0.25, 0.8), (stack - 0.6, 0.85))
    funnel, wake = f.block(stack, 0.42, 0.11, 0.25), f.strokes(0.05, (-0.9, -0.78, 0.8, -0.78))
    return [(smoke, 0.3), (wake, 0.2), (funnel, 1.0), (cabin, 0.7), (window, 0.1), (hull, 0.45)]


def _laptop(f: Frame, g: np.random.Generator) -> Parts:
    screen, picture = f.block(0, 0.35, 0.62, 0.45), f.block(0, 0.37, 0.5, 0.33)
    base = f.convex((-0.95, -0.65), (0.95, -0.65), (0.66, -0.15), (-0.66, -0.15))
    keys = f.strokes(0.035, (-0.55, -0.3, 0.55, -0.3), (-0.62, -0.45, 0.62, -0.45))
    fan = f.oval(g.uniform(0.25, 0.5), -0.25, 0.22, 0.13)
    return [(screen, 0.55), (picture, 0.2), (base, 0.65), (keys, 0.35), (fan, 1.0)]


def _street_lamp(f: Frame, g: np.random.Generator) -> Parts:
    reach = g.uniform(0.3, 0.5)
    pole = f.path(0.065, (-0.3, -1.0), (-0.3, 0.6), (-0.15, 0.78), (reach, 0.8))
    glow, lamp = f.oval(reach + 0.05, 0.68, 0.36, 0.24), f.oval(reach + 0.05, 0.72, 0.24, 0.13)
    return [(glow, 0.25), (pole, 0.45), (f.block(-0.3, -0.92, 0.16, 0.08), 0.45), (lamp, 1.0)]


def _hand(f: Frame, g: np.random.Generator) -> Parts:
    spread = g.uniform(0.8, 1.2)
    roots, tips = (-0.3, -0.1, 0.1, 0.3), ((-0.55, 0.6), (-0.18, 0.85), (0.18, 0.85), (0.5, 0.65))
    bones = [(r, 0.1, spread * tx, ty) for r, (tx, ty) in zip(roots, tips, strict=True)]
    fingers = f.strokes(0.095, *bones, (-0.2, -0.35, -0.75 * spread, 0.05))
    ends = union(*(f.disc(spread * tx, ty, 0.1) for tx, ty in tips))
    return [(f.block(0, -0.8, 0.24, 0.3), 0.6), (fingers, 0.8), (f.oval(0, -0.2, 0.42, 0.42), 1.0), (ends, 0.45)]


def _wind_turbine(f: Frame, g: np.random.Generator) -> Parts:
    angles = g.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3
    blades = f.strokes(0.07, *((0.0, 0.25, 0.68 * np.cos(a), 0.25 + 0.68 * np.sin(a)) for a in angles))
    tower = f.convex((-0.11, -1.0), (0.11, -1.0), (0.05, 0.25), (-0.05, 0.25))
    return [(tower, 0.4), (blades, 0.55), (f.disc(0, 0.25, 0.14), 1.0)]


_THINGS: tuple[tuple[str, Thing], ...] = (
    ("person", _person),
    ("dog", _dog),
    ("car", _car),
    ("cup of coffee", _cup),
    ("building", _building),
    ("campfire", _campfire),
    ("pipe", _pipe),
    ("airplane", _airplane),
    ("bicycle", _bicycle),
    ("solar panel", _solar_panel),
    ("drone", _drone),
    ("boat", _boat),
    ("laptop", _laptop),
    ("street lamp", _street_lamp),
    ("hand", _hand),
    ("wind turbine", _wind_turbine),
)


# The bundled towers were trained with these prompts; the articles stay as they were.
_PHRASES = {"building": "building", "campfire": "campfire"}


@register("task", "thermal-world")
@dataclass(frozen=True, kw_only=True)
class ThermalWorld(World):
    """Sixteen things seen by a thermal camera, drawn as parts of their own heat.

    The sensor domain has more noise (NETD .03 instead of .01 of the range), column noise, more blur, less contrast,
    parts whose heat varies more, more warm clutter, and black-hot polarity in a quarter of the pictures. Brightness
    alone does not reveal the class: surroundings, contrast and polarity are independent of it. Boxes are (1, H, W), or
    (3, H, W) with equal channels.
    """

    name: ClassVar[str] = "thermal-world"
    version: ClassVar[int] = 1
    world_modality: ClassVar[Modality] = "thermal"
    world_classes: ClassVar[tuple[Label, ...]] = tuple(
        Label(n.replace(" ", "_"), n, _PHRASES.get(n, "")) for n, _ in _THINGS
    )
    world_templates: ClassVar[tuple[str, ...]] = (
        "a thermal image of {a}.",
        "an infrared photo of {a}.",
        "a heat picture of {a}.",
        "a thermal camera view of {a}.",
        "a blurry thermal image of {a}.",
        "{a} seen in infrared.",
    )

    def render(self, g: np.random.Generator, label: int, box: Box) -> np.ndarray:
        """Renders the scene through optics and sensor, (1 or 3, H, W).

        Raises: ModalityError for a box of another shape.
        """
        if len(box.shape) != 3 or box.shape[0] not in (1, 3):
            raise ModalityError(f"thermal-world draws (1, H, W) or (3, H, W), not a box of shape {box.shape}")
        camera, hw = _CAMERAS[self.domain], (box.shape[1], box.shape[2])
        heat = _draw_surroundings(g, hw, camera)
        amplitude = g.uniform(*camera.amplitude)
        f = pose(g, hw, turn=0.3, scale=(0.55, 0.9), shift=0.2, stretch=0.3)
        for distance, part in _THINGS[label][1](f, g):
            warm = amplitude * part * g.uniform(1 - camera.weather, 1 + camera.weather)
            heat += f.cover(distance) * (0.15 + warm - heat)
        return np.broadcast_to(_sense(g, heat, camera), box.shape)


def _draw_surroundings(g: np.random.Generator, hw: tuple[int, int], camera: _Camera) -> np.ndarray:
    """Draws sky over ground, with warm blobs."""
    x, y = grid(*hw)
    sky, step, horizon, slope = g.uniform(0.05, 0.2), g.uniform(-0.1, 0.1), g.uniform(-0.6, 0.3), g.uniform(-0.2, 0.2)
    heat = sky + step / (1 + np.exp((y - horizon - slope * x) * 20))
    for _ in range(camera.blobs):
        (cx, cy), r, h = g.uniform(-1, 1, 2), g.uniform(0.1, 0.25), g.uniform(0.3, 1)
        heat += camera.blob_heat * h * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * r * r))
    return heat


def _sense(g: np.random.Generator, heat: np.ndarray, camera: _Camera) -> np.ndarray:
    """Applies optics, vignetting, polarity, column and pixel noise, and rounds to 8 bits."""
    h, w = heat.shape
    x, y = grid(h, w)
    image = gaussian_filter(heat, (camera.blur * h / SENSOR, camera.blur * w / SENSOR), mode="nearest", truncate=3)
    image = image * (1 - g.uniform(0.0, 0.12) * (x * x + y * y)) + g.uniform(0.0, 0.08)
    if g.random() < camera.black_hot:
        image = 1 - image
    noise = camera.noise * g.standard_normal((SENSOR, SENSOR)) + camera.columns * g.standard_normal(SENSOR)
    return quantise(image + cells(noise, (h, w)))
