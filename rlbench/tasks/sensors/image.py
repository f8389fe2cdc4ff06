"""The image of a scene: a close-up in colour, dim and noisy at night, pale in fog."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.shapes import SENSOR, Frame, cells, grid, quantise, smooth
from rlbench.tasks.world import Domain


@dataclass(frozen=True)
class _Camera:
    """A domain's camera and clutter.

    Attributes:
        noise: standard deviation per channel and sensor cell.
        contrast: range of the RGB distance between thing and background in daylight.
        texture: standard deviation of the smooth background texture.
        bars: number of clutter bars.
    """

    noise: float
    contrast: tuple[float, float]
    texture: float
    bars: int


_CAMERAS: dict[Domain, _Camera] = {
    "web": _Camera(0.012, (0.45, 0.9), 0.03, 1),
    "sensor": _Camera(0.03, (0.35, 0.75), 0.05, 2),
}
_MIST = 0.7  # brightness of fog by day


def render_image(scene: Scene, domain: Domain, hw: tuple[int, int]) -> np.ndarray:
    """Renders the scene.

    Args:
        scene: what is there.
        domain: decides the camera and the clutter.
        hw: the rows and columns of the picture.

    Returns:
        (3, H, W) float32 in [0, 1], rounded to 8 bits.
    """
    camera, g, kind = _CAMERAS[domain], scene.make_stream("image"), KINDS[scene.label]
    ink, ground = draw_colours(g, camera.contrast)
    picture = _draw_background(g, ground, hw, camera)
    f = scene.make_frame(hw)
    for distance, level in zip(kind.image.outline(f, scene), kind.image.levels, strict=True):
        picture += f.cover(distance) * (ground + level * (ink - ground) - picture)
    noise = camera.noise * g.standard_normal((3, SENSOR, SENSOR), dtype=np.float32)
    return quantise(expose(picture, scene) + cells(noise, hw))


def draw_colours(g: np.random.Generator, contrast: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Draws the colours of a thing and its background.

    Args:
        g: the sensor's random stream.
        contrast: the range of the distance between the colours.

    Returns:
        The colour of the thing and of the background, (3, 1, 1) each, in [0, 1].
    """
    ink, grounds = g.random(3), g.random((32, 3))
    off = np.abs(np.linalg.norm(grounds - ink, axis=1) - g.uniform(*contrast))
    return ink[:, None, None], grounds[off.argmin()][:, None, None]


def expose(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """Adds fog, then dims: without any light, a quarter of the brightness and of the contrast is left.

    Args:
        picture: (3, ..., H, W) in full daylight and clear air.
        scene: gives fog and light.
    """
    hazy = picture + scene.fog * (_MIST - picture)
    return np.asarray(hazy * (0.25 + 0.75 * scene.light))


def _draw_background(g: np.random.Generator, ground: np.ndarray, hw: tuple[int, int], camera: _Camera) -> np.ndarray:
    """Draws a smooth texture with clutter bars in other colours, (3, H, W)."""
    picture: np.ndarray = ground + camera.texture * smooth(g.standard_normal((3, 6, 6)), hw)
    f = Frame(*grid(*hw), 2 / min(hw))
    for _ in range(camera.bars):
        (x, y), angle, reach = g.uniform(-1, 1, 2), g.uniform(0, np.pi), g.uniform(0.2, 0.6)
        dx, dy = reach * np.cos(angle), reach * np.sin(angle)
        bar = f.strokes(g.uniform(0.04, 0.1), (x - dx, y - dy, x + dx, y + dy))
        picture += 0.5 * f.cover(bar) * (g.random(3)[:, None, None] - picture)
    return picture
