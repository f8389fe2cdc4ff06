"""Sixteen kinds of coloured object, drawn as signed-distance shapes on a textured background."""

from __future__ import annotations

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Box, Label, Modality
from rlbench.core.errors import ModalityError
from rlbench.core.registry import register
from rlbench.tasks.shapes import SENSOR, Frame, Parts, cells, grid, pose, quantise, smooth, union
from rlbench.tasks.world import Domain, World

Thing = Callable[[Frame, np.random.Generator], Parts]


@dataclass(frozen=True)
class _Style:
    """How a domain's pictures look; colours are in [0, 1] per channel.

    Attributes:
        noise: standard deviation per channel and sensor cell.
        contrast: range of the RGB distance between object and background.
        bars: number of clutter bars behind the object.
        bar_strength: opacity of the bars.
        texture: standard deviation of the smooth background texture.
        stripes: largest amplitude of the object's stripes, as a fraction of the contrast.
        typical: probability that the object has its class's typical hue.
    """

    noise: float
    contrast: tuple[float, float]
    bars: int
    bar_strength: float
    texture: float
    stripes: float
    typical: float


STYLES: dict[Domain, _Style] = {
    "web": _Style(0.01, (0.5, 0.9), 1, 0.3, 0.03, 0.15, 0.8),
    "sensor": _Style(0.04, (0.3, 0.7), 3, 0.6, 0.06, 0.35, 0.5),
}


def _ball(f: Frame, g: np.random.Generator) -> Parts:
    bend = g.uniform(0.3, 0.5)
    seams = union(f.ring(-0.75 - bend, 0, 0.9, 0.05), f.ring(0.75 + bend, 0, 0.9, 0.05))
    ball = f.disc(0, 0, 0.75)
    return [(ball, 1.0), (np.maximum(seams, ball), 0.3)]


def _box(f: Frame, g: np.random.Generator) -> Parts:
    lid = g.uniform(0.2, 0.4)
    front, top = f.block(-0.12, -0.15, 0.6, 0.6), f.convex((-0.72, 0.45), (0.48, 0.45), (0.8, 0.75), (-0.4, 0.75))
    side = f.convex((0.48, -0.75), (0.8, -0.45), (0.8, 0.75), (0.48, 0.45))
    return [(front, 1.0), (top, 0.75), (side, 0.5), (f.block(-0.12, lid - 0.15, 0.6, 0.05), 0.55)]


def _tent(f: Frame, g: np.random.Generator) -> Parts:
    half = g.uniform(0.15, 0.3)
    door = f.convex((-half, -0.65), (half, -0.65), (0, 0.2))
    return [(f.convex((-0.95, -0.65), (0.95, -0.65), (0, 0.75)), 1.0), (door, 0.15)]


def _ring(f: Frame, g: np.random.Generator) -> Parts:
    return [(f.ring(0, 0, 0.58, g.uniform(0.12, 0.2)), 1.0)]


def _cross(f: Frame, g: np.random.Generator) -> Parts:
    half = g.uniform(0.15, 0.25)
    return [(union(f.block(0, 0, half, 0.8), f.block(0, 0, 0.8, half)), 1.0)]


def _moon(f: Frame, g: np.random.Generator) -> Parts:
    bite = g.uniform(0.35, 0.5)
    return [(np.maximum(f.disc(-0.1, 0, 0.8), -f.disc(bite, 0.1, 0.7)), 1.0)]


def _house(f: Frame, g: np.random.Generator) -> Parts:
    door, chimney = g.uniform(-0.3, -0.1), f.block(0.4, 0.55, 0.11, 0.3)
    roof = f.convex((-0.85, 0.1), (0.85, 0.1), (0, 0.85))
    openings = union(f.block(door, -0.5, 0.14, 0.3), f.block(0.3, -0.25, 0.15, 0.15))
    return [(chimney, 0.7), (f.block(0, -0.35, 0.65, 0.45), 0.8), (roof, 1.1), (openings, 0.1)]


def _fish(f: Frame, g: np.random.Generator) -> Parts:
    fan = g.uniform(0.3, 0.5)
    tail = f.convex((0.35, 0.0), (0.9, -fan), (0.9, fan))
    fin = f.convex((-0.35, 0.3), (0.25, 0.3), (0.15, 0.65))
    return [(fin, 0.7), (tail, 0.8), (f.oval(-0.15, 0, 0.7, 0.42), 1.0), (f.disc(-0.55, 0.1, 0.1), 0.0)]


def _mushroom(f: Frame, g: np.random.Generator) -> Parts:
    stem = g.uniform(0.15, 0.24)
    cap = np.maximum(f.oval(0, 0.0, 0.85, 0.75), 0.02 - f.y)
    spots = union(f.disc(-0.4, 0.28, 0.12), f.disc(0.05, 0.48, 0.13), f.disc(0.42, 0.22, 0.12))
    return [(f.block(0, -0.4, stem, 0.45), 0.65), (cap, 1.0), (spots, 0.2)]


def _key(f: Frame, g: np.random.Generator) -> Parts:
    teeth = f.strokes(0.09, (0.78, 0, 0.78, -0.32), (0.5, 0, 0.5, -g.uniform(0.2, 0.35)))
    return [(union(f.ring(-0.55, 0, 0.28, 0.11), f.strokes(0.1, (-0.2, 0, 0.85, 0)), teeth), 1.0)]


def _star(f: Frame, g: np.random.Generator) -> Parts:
    inner = g.uniform(0.34, 0.44)
    turns = np.arange(-1, 10) * np.pi / 5 + np.pi / 2
    radii = np.where(np.arange(11) % 2, 0.92, inner)
    x, y = radii * np.cos(turns), radii * np.sin(turns)
    # Every tip of the star extends past the centre, so that there is no seam between tips.
    tips = [f.convex((-x[k] / 4, -y[k] / 4), *((x[i], y[i]) for i in (k - 1, k, k + 1))) for k in range(1, 10, 2)]
    return [(union(*tips), 1.0)]


def _heart(f: Frame, g: np.random.Generator) -> Parts:
    tip = g.uniform(-0.9, -0.75)
    lobes = union(f.disc(-0.36, 0.28, 0.42), f.disc(0.36, 0.28, 0.42))
    return [(union(lobes, f.convex((0, tip), (0.72, 0.06), (0, 0.45), (-0.72, 0.06))), 1.0)]


def _arrow(f: Frame, g: np.random.Generator) -> Parts:
    wide = g.uniform(0.45, 0.6)
    head = f.convex((0.15, -wide), (0.95, 0), (0.15, wide))
    return [(union(f.block(-0.35, 0, 0.55, g.uniform(0.12, 0.2)), head), 1.0)]


def _ladder(f: Frame, g: np.random.Generator) -> Parts:
    rungs = np.linspace(-0.7, 0.7, g.integers(4, 6))
    rails = ((-0.38, -0.95, -0.32, 0.95), (0.38, -0.95, 0.32, 0.95))
    return [(f.strokes(0.08, *rails, *((-0.35, y, 0.35, y) for y in rungs)), 1.0)]


def _cup(f: Frame, g: np.random.Generator) -> Parts:
    top = g.uniform(0.45, 0.55)
    wall = f.convex((-0.55, -0.65), (0.2, -0.65), (top - 0.18, 0.45), (-top - 0.18, 0.45))
    rim = f.oval(-0.18, 0.45, top, 0.15)
    return [(f.ring(0.42, -0.08, 0.27, 0.09), 0.9), (wall, 1.0), (rim, 0.4)]


def _hourglass(f: Frame, g: np.random.Generator) -> Parts:
    sand = g.uniform(0.2, 0.45)
    upper, lower = f.convex((0, -0.08), (0.5, 0.75), (-0.5, 0.75)), f.convex((0, 0.08), (-0.5, -0.75), (0.5, -0.75))
    caps = f.strokes(0.11, (-0.55, 0.8, 0.55, 0.8), (-0.55, -0.8, 0.55, -0.8))
    return [(union(upper, lower), 0.7), (np.maximum(upper, sand - f.y), 0.3), (caps, 1.1)]


# Name, typical hue (shared by several classes: colour is a hint, never the answer), drawing.
_THINGS: tuple[tuple[str, float, Thing], ...] = (
    ("ball", 0.0, _ball),
    ("box", 0.1, _box),
    ("tent", 0.35, _tent),
    ("ring", 0.15, _ring),
    ("cross", 0.0, _cross),
    ("crescent moon", 0.15, _moon),
    ("house", 0.05, _house),
    ("fish", 0.55, _fish),
    ("mushroom", 0.0, _mushroom),
    ("key", 0.6, _key),
    ("star", 0.15, _star),
    ("heart", 0.95, _heart),
    ("arrow", 0.35, _arrow),
    ("ladder", 0.1, _ladder),
    ("cup", 0.6, _cup),
    ("hourglass", 0.8, _hourglass),
)
# The bundled towers were trained with these prompts; the articles stay as they were.
_PHRASES = {"ring": "ring", "hourglass": "a hourglass"}


@register("task", "image-world")
@dataclass(frozen=True, kw_only=True)
class ImageWorld(World):
    """Sixteen coloured things drawn as signed-distance shapes on a textured background.

    The sensor domain has more noise (.04 instead of .01), less contrast, three clutter bars instead of a weak one,
    more texture and stripes, and the class's typical hue in only half of the pictures. Boxes are (3, H, W).
    """

    name: ClassVar[str] = "image-world"
    version: ClassVar[int] = 1
    world_modality: ClassVar[Modality] = "image"
    world_classes: ClassVar[tuple[Label, ...]] = tuple(
        Label(n.replace(" ", "_"), n, _PHRASES.get(n, "")) for n, _, _ in _THINGS
    )
    world_templates: ClassVar[tuple[str, ...]] = (
        "a photo of {a}.",
        "a drawing of {a}.",
        "a picture of {a}.",
        "a small picture of {a}.",
        "a noisy photo of {a}.",
        "an icon of {a}.",
    )

    def render(self, g: np.random.Generator, label: int, box: Box) -> np.ndarray:
        """Renders the scene with its noise, (3, H, W).

        Raises: ModalityError for a box of another shape.
        """
        if len(box.shape) != 3 or box.shape[0] != 3:
            raise ModalityError(f"image-world draws (3, H, W), not a box of shape {box.shape}")
        style, hw = STYLES[self.domain], (box.shape[1], box.shape[2])
        _, hue, thing = _THINGS[label]
        ink, ground = draw_colours(g, hue, style)
        picture = _draw_background(g, ground, hw, style)
        f = pose(g, hw, turn=0.3, scale=(0.6, 0.9), shift=0.2, stretch=0.2)
        striped = (ink - ground) * (1 + _draw_stripes(g, hw, style))
        for distance, level in thing(f, g):
            picture += f.cover(distance) * (ground + level * striped - picture)
        noise = style.noise * g.standard_normal((3, SENSOR, SENSOR), dtype=np.float32)
        return quantise(picture + cells(noise, hw))


def draw_colours(g: np.random.Generator, hue: float, style: _Style) -> tuple[np.ndarray, np.ndarray]:
    """Draws the colours of object and background, (3, 1, 1) each, about a random contrast apart."""
    typical, other = g.random() < style.typical, g.random()
    tone, saturation, value = hue + g.normal(0, 0.03), g.uniform(0.4, 1), g.uniform(0.4, 1)
    ink = np.array(hsv_to_rgb(tone % 1 if typical else other, saturation, value))
    grounds = g.random((64, 3))
    off = np.abs(np.linalg.norm(grounds - ink, axis=1) - g.uniform(*style.contrast))
    return ink[:, None, None], grounds[off.argmin()][:, None, None]


def _draw_background(g: np.random.Generator, ground: np.ndarray, hw: tuple[int, int], style: _Style) -> np.ndarray:
    """Draws a smooth texture with clutter bars in other colours, (3, H, W)."""
    picture: np.ndarray = ground + style.texture * smooth(g.standard_normal((3, 6, 6)), hw)
    f = Frame(*grid(*hw), 2 / min(hw))
    for _ in range(style.bars):
        (x, y), angle, reach = g.uniform(-1, 1, 2), g.uniform(0, np.pi), g.uniform(0.2, 0.6)
        dx, dy = reach * np.cos(angle), reach * np.sin(angle)
        bar = f.strokes(g.uniform(0.04, 0.1), (x - dx, y - dy, x + dx, y + dy))
        colour = g.random(3)[:, None, None]
        picture += style.bar_strength * f.cover(bar) * (colour - picture)
    return picture


def _draw_stripes(g: np.random.Generator, hw: tuple[int, int], style: _Style) -> np.ndarray:
    """Draws parallel waves of random direction, length and amplitude, (H, W)."""
    x, y = grid(*hw)
    angle, waves, phase = g.uniform(0, np.pi), g.uniform(4, 12), g.uniform(0, 2 * np.pi)
    along = waves * (np.cos(angle) * x + np.sin(angle) * y)
    wave: np.ndarray = np.sin(along + phase)
    return g.uniform(0, style.stripes) * wave
