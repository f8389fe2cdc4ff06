"""The video of a scene: a wide-angle clip in colour, in which the thing is small and its motion tells most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlbench.tasks.sensors.image import draw_colours, expose
from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.motions import Blob
from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.shapes import SENSOR, cells, grid, quantise
from rlbench.tasks.world import Domain

FRAMES = 8  # noise changes this many times per clip, for any box
_NEAR = 1.2  # size and speed of a thing at distance 0, relative to the motions' lengths


@dataclass(frozen=True)
class _Camera:
    """A domain's camera and background.

    Attributes:
        noise: standard deviation per channel, sensor cell and frame.
        contrast: range of the RGB distance between thing and background in daylight.
        texture: standard deviation of the background.
        discs: number of still things that do not belong to the class.
    """

    noise: float
    contrast: tuple[float, float]
    texture: float
    discs: int


_CAMERAS: dict[Domain, _Camera] = {
    "web": _Camera(0.012, (0.5, 1.0), 0.03, 1),
    "sensor": _Camera(0.02, (0.5, 0.95), 0.03, 1),
}


def render_video(scene: Scene, domain: Domain, thw: tuple[int, int, int]) -> np.ndarray:
    """Renders the scene.

    Args:
        scene: what is there.
        domain: decides the camera and the background.
        thw: the frames, rows and columns of the clip.

    Returns:
        (3, T, H, W) float32 in [0, 1], rounded to 8 bits.
    """
    frames, *hw = thw
    camera, g, motion = _CAMERAS[domain], scene.make_stream("video"), KINDS[scene.label].video
    t = (np.arange(frames) + 0.5) / frames
    ink, ground = draw_colours(g, camera.contrast)
    right, up = (way * (t - 0.5) for way in scene.shake)
    film = _draw_background(g, ground, (right, up), (hw[0], hw[1]), camera)
    near = _NEAR * (1 - 0.45 * scene.distance)
    x, y = scene.x + right, scene.y + motion.height + up
    for blob in motion.move(scene, t):
        cover = _cover(blob, x + scene.mirror * near * blob.x, y + near * blob.y, near, (hw[0], hw[1]))
        tone = np.broadcast_to(blob.tone, t.shape)[:, None, None]
        paint = ground[:, None] + tone * (ink - ground)[:, None]
        film += cover * (paint.astype(np.float32) - film)
    noise = camera.noise * g.standard_normal((3, FRAMES, SENSOR, SENSOR), dtype=np.float32)
    return quantise(expose(film, scene) + cells(noise[:, np.arange(frames) * FRAMES // frames], (hw[0], hw[1])))


def _cover(blob: Blob, x: np.ndarray, y: np.ndarray, near: float, hw: tuple[int, int]) -> np.ndarray:
    """Computes the fraction of every pixel that a blob at x, y (T,) covers, (T, H, W)."""
    right, up = grid(*hw)
    rx, ry = (np.broadcast_to(near * np.asarray(r), x.shape)[:, None, None] for r in (blob.rx, blob.ry))
    u, v = (right[:1] - x[:, None, None]) / rx, (up[:, :1] - y[:, None, None]) / ry  # (T, 1, W) and (T, H, 1)
    radius = np.maximum(np.abs(u), np.abs(v)) if blob.box else np.sqrt(u * u + v * v)
    cover = 0.5 - (radius - 1) * (np.minimum(rx, ry) * min(hw) / 2)
    return np.asarray(cover.clip(0, 1), dtype=np.float32)


def _draw_background(
    g: np.random.Generator, ground: np.ndarray, way: Sequence[np.ndarray], hw: tuple[int, int], camera: _Camera
) -> np.ndarray:
    """Draws a textured sky and ground with still discs, seen by a camera that moves along `way`, (3, T, H, W)."""
    (x, y), (right, up) = grid(*hw), (path[:, None, None] for path in way)
    u, v = (x - right).astype(np.float32), (y - up).astype(np.float32)
    k, tints = g.uniform([-7, -7, 0], [7, 7, 6.28], (3, 3)).tolist(), g.normal(0, camera.texture, (3, 3))
    waves = [np.sin(kx * u + ky * v + phase) for kx, ky, phase in k]
    horizon, step = g.uniform(-0.2, 0.2), g.uniform(-0.12, 0.12, 3)
    waves.append(1 / (1 + np.exp(np.clip((v - horizon) * 20, -30, 30))))
    film = np.tensordot(np.column_stack([tints, step]).astype(np.float32), np.stack(waves), 1)
    film += ground[:, None].astype(np.float32)
    for _ in range(camera.discs):
        cx, cy, r = g.uniform([-0.9, -0.9, 0.06], [0.9, 0.9, 0.14]).tolist()
        cover = np.clip(0.5 - (np.sqrt((u - cx) ** 2 + (v - cy) ** 2) - r) * (min(hw) / 2), 0, 1)
        film += 0.6 * cover * (g.random((3, 1, 1, 1), dtype=np.float32) - film)
    return film
