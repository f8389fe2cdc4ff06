"""The video world: sixteen actions of an object in front of a textured background, seen by a drifting camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Box, Label, Modality
from rlbench.core.errors import ModalityError
from rlbench.core.registry import register
from rlbench.tasks.shapes import SENSOR, Frame, cells, grid, quantise, union
from rlbench.tasks.world import Domain, World

FRAMES = 8  # noise changes this many times per clip, for any box
Rng = np.random.Generator
Path = np.ndarray | float  # a value, or one for every frame


@dataclass(frozen=True, kw_only=True)
class _Track:
    """One object over time: place, size, angle, opacity, and blend from its first colour (0) to its second (1)."""

    x: Path = 0.0
    y: Path = 0.0
    size: Path = 1.0
    angle: Path = 0.0
    opacity: Path = 1.0
    blend: Path = 0.0

    def frames(self, t: np.ndarray) -> list[list[float]]:
        """Lists [x, y, size, angle, opacity, blend] for every frame."""
        paths = (self.x, self.y, self.size, self.angle, self.opacity, self.blend)
        table: list[list[float]] = np.stack([p + 0 * t for p in paths], axis=1).tolist()
        return table


Action = Callable[[Rng, np.ndarray], list[_Track]]


@dataclass(frozen=True)
class _Scene:
    """A domain's camera and surroundings."""

    contrast: tuple[float, float]
    texture: float
    distractors: int
    drift: float
    noise: float


_SCENES: dict[Domain, _Scene] = {
    "web": _Scene((0.55, 0.85), 0.05, 1, 0.05, 0.01),
    "sensor": _Scene((0.2, 0.45), 0.12, 4, 0.2, 0.035),
}


def _moving(dx: float, dy: float) -> Action:
    def act(g: Rng, t: np.ndarray) -> list[_Track]:
        way = g.uniform(0.9, 1.3) * (t - 0.5)
        return [_Track(x=dx * way, y=dy * way)]

    return act


def _rotating(g: Rng, t: np.ndarray) -> list[_Track]:
    return [_Track(angle=g.choice((-1, 1)) * g.uniform(2.5, 4.5) * t)]


def _blinking(g: Rng, t: np.ndarray) -> list[_Track]:
    return [_Track(opacity=np.sin(2 * np.pi * (g.uniform(1.6, 2.4) * t + g.random())) > 0)]


def _growing(g: Rng, t: np.ndarray) -> list[_Track]:
    return [_Track(size=g.uniform(0.35, 0.6) + g.uniform(1.1, 1.5) * t)]


def _shrinking(g: Rng, t: np.ndarray) -> list[_Track]:
    return _growing(g, 1 - t)


def _bouncing(g: Rng, t: np.ndarray) -> list[_Track]:
    height = np.abs(np.sin(np.pi * (g.uniform(1.8, 2.6) * t + g.random())))
    return [_Track(y=g.uniform(0.7, 1.0) * (height - 0.6))]


def _shaking(g: Rng, t: np.ndarray) -> list[_Track]:
    sway = np.sin(2 * np.pi * (np.outer(g.uniform(2.7, 3.7, 2), t) + g.random((2, 1))))
    x, y = g.uniform(0.13, 0.2) * sway
    return [_Track(x=x, y=y, angle=0.3 * x)]


def _splitting(g: Rng, t: np.ndarray) -> list[_Track]:
    angle, apart = g.uniform(0, 2 * np.pi), g.uniform(0.6, 0.8) * np.clip(1.3 * t - 0.3, 0, 1)
    x, y = apart * np.cos(angle), apart * np.sin(angle)
    return [_Track(x=x, y=y, size=0.8), _Track(x=-x, y=-y, size=0.8)]


def _merging(g: Rng, t: np.ndarray) -> list[_Track]:
    return _splitting(g, 1 - t)


def _recolouring(g: Rng, t: np.ndarray) -> list[_Track]:
    return [_Track(blend=1 / (1 + np.exp(-g.uniform(8, 16) * (t - g.uniform(0.4, 0.6)))))]


def _circling(g: Rng, t: np.ndarray) -> list[_Track]:
    angle = g.choice((-1, 1)) * g.uniform(5, 7) * t + g.uniform(0, 2 * np.pi)
    radius = g.uniform(0.4, 0.55)
    return [_Track(x=radius * np.cos(angle), y=radius * np.sin(angle))]


def _swinging(g: Rng, t: np.ndarray) -> list[_Track]:
    angle = g.uniform(0.7, 0.9) * np.sin(2 * np.pi * (g.uniform(1.1, 1.5) * t + g.random()))
    return [_Track(x=0.8 * np.sin(angle), y=0.5 - 0.8 * np.cos(angle), angle=angle)]


def _fading(g: Rng, t: np.ndarray) -> list[_Track]:
    return [_Track(opacity=np.clip(1 - g.uniform(1.0, 1.4) * t, 0, 1))]


ACTIONS: dict[str, Action] = {
    "moving left": _moving(-1, 0),
    "moving right": _moving(1, 0),
    "moving up": _moving(0, 1),
    "moving down": _moving(0, -1),
    "rotating": _rotating,
    "blinking": _blinking,
    "growing": _growing,
    "shrinking": _shrinking,
    "bouncing": _bouncing,
    "shaking": _shaking,
    "splitting in two": _splitting,
    "merging with another": _merging,
    "changing color": _recolouring,
    "circling": _circling,
    "swinging like a pendulum": _swinging,
    "fading away": _fading,
}

# No shape looks the same after a small turn, so that rotation is visible.
SHAPES: tuple[Callable[[Frame], np.ndarray], ...] = (
    lambda f: f.block(0, 0, 1, 0.4),
    lambda f: f.convex((-0.9, -0.6), (0.9, -0.6), (0, 1)),
    lambda f: union(f.block(0, 0, 1, 0.3), f.block(0, 0, 0.3, 1)),
    lambda f: union(f.block(-0.5, 0, 0.35, 0.9), f.block(0.1, -0.6, 0.8, 0.3)),
    lambda f: union(f.block(0, 0.6, 0.9, 0.3), f.block(0, -0.2, 0.3, 0.8)),
)


def _make_frame(hw: tuple[int, int], x: float, y: float, size: float, angle: float) -> Frame:
    """Makes the frame of an object at (x, y)."""
    right, up = grid(*hw)
    cos, sin = np.float32(np.cos(angle) / size), np.float32(np.sin(angle) / size)
    right, up = right - np.float32(x), up - np.float32(y)
    return Frame(cos * right + sin * up, cos * up - sin * right, 2 / min(hw) / size)


def _draw_colours(g: Rng, contrast: tuple[float, float]) -> np.ndarray:
    """Draws a dark background colour and two of different hues, brighter by the same distance; (3, 3), one per row."""
    ground, hue, distance = g.uniform(0.1, 0.4, 3), g.random(), g.uniform(*contrast)
    hues = np.array([hue, hue + g.uniform(0.35, 0.65)])[:, None] + np.arange(3) / 3
    light = 1 + np.cos(2 * np.pi * hues)
    light *= distance / np.linalg.norm(light, axis=1, keepdims=True)
    return np.asarray(np.clip(np.vstack([ground, ground + light]), 0, 1))


def _broadcast(colours: np.ndarray) -> np.ndarray:
    """Adds axes for pixels: (..., 3) -> (..., 3, 1, 1) float32."""
    return np.asarray(colours, dtype=np.float32)[..., None, None]


class _Backdrop:
    """A still scene of coloured plane waves and small discs, drawn from g independently of the picture size."""

    def __init__(self, g: Rng, scene: _Scene, ground: np.ndarray) -> None:
        self.ground = ground
        self.waves = g.uniform(-9, 9, (2, 4, 1, 1)).astype(np.float32)
        self.phases = g.uniform(0, 2 * np.pi, (4, 1, 1)).astype(np.float32)
        self.tints = g.normal(0, scene.texture / 2, (3, 4)).astype(np.float32)
        places, radii = g.uniform(-0.9, 0.9, (scene.distractors, 2)), g.uniform(0.06, 0.13, (scene.distractors, 1))
        self.discs: list[list[float]] = np.hstack([places, radii]).tolist()
        self.paints = _broadcast(np.clip(ground + g.uniform(-0.4, 0.4, (scene.distractors, 3)), 0, 1))

    def draw(self, hw: tuple[int, int], dx: float, dy: float) -> np.ndarray:
        """Draws the scene with the camera moved by (dx, dy), (3, H, W)."""
        view = _make_frame(hw, dx, dy, 1, 0)
        kx, ky = self.waves
        picture = _broadcast(self.ground) + np.tensordot(self.tints, np.sin(kx * view.x + ky * view.y + self.phases), 1)
        for disc, paint in zip(self.discs, self.paints, strict=True):
            picture += view.cover(view.disc(*disc)) * (paint - picture)
        return np.asarray(picture)


@register("task", "video-world")
@dataclass(frozen=True, kw_only=True)
class VideoWorld(World):
    """Procedural clips of an object that performs one of 16 actions.

    Web: plain background, one distractor, strong colours, almost no noise or drift. Sensor: textured background,
    three distractors, weaker colours, camera drift, noise of deviation 0.03.
    """

    name: ClassVar[str] = "video-world"
    version: ClassVar[int] = 2
    world_modality: ClassVar[Modality] = "video"
    world_classes: ClassVar[tuple[Label, ...]] = tuple(Label(name.replace(" ", "_"), name) for name in ACTIONS)
    world_templates: ClassVar[tuple[str, ...]] = (
        "a video of an object {}.",
        "footage of an object {}.",
        "a clip of something {}.",
        "a noisy video of an object {}.",
        "an object is {} in this video.",
        "a shape {} in front of a busy background.",
    )

    def render(self, g: Rng, label: int, box: Box) -> np.ndarray:
        """Renders the clip, (3, T, H, W).

        Raises: ModalityError for a box of another shape.
        """
        if len(box.shape) != 4 or box.shape[0] != 3:
            raise ModalityError(f"video-world draws (3, T, H, W), not a box of shape {box.shape}")
        _, frames, h, w = box.shape
        hw, t = (h, w), (np.arange(frames) + 0.5) / frames
        scene = _SCENES[self.domain]
        ground, first, second = _draw_colours(g, scene.contrast)
        backdrop, first, second = _Backdrop(g, scene, ground), _broadcast(first), _broadcast(second)
        drift = g.uniform(-scene.drift, scene.drift, (2, 1)) * (t - 0.5)
        shape, size, turn = SHAPES[g.integers(len(SHAPES))], g.uniform(0.28, 0.36), g.uniform(0, 2 * np.pi)
        place: list[float] = g.uniform(-0.2, 0.2, 2).tolist()
        tracks = [track.frames(t) for track in list(ACTIONS.values())[label](g, t)]
        noise = scene.noise * g.standard_normal((FRAMES, 3, SENSOR, SENSOR), dtype=np.float32)
        film = cells(noise[np.arange(frames) * FRAMES // frames], hw)
        for k, (dx, dy) in enumerate(drift.T.tolist()):
            picture = backdrop.draw(hw, dx, dy)
            for x, y, scale, angle, opacity, blend in (track[k] for track in tracks):
                f = _make_frame(hw, place[0] + dx + x, place[1] + dy + y, size * scale, turn + angle)
                paint = (1 - blend) * first + blend * second
                picture += opacity * f.cover(shape(f)) * (paint - picture)
            film[k] += picture
        return quantise(film.swapaxes(0, 1))
