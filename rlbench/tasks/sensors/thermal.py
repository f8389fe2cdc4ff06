"""The thermal picture of a scene: the same close-up, blind to light, blurred by haze, flat where all is warm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.shapes import SENSOR, cells, grid, quantise
from rlbench.tasks.world import Domain


@dataclass(frozen=True)
class _Camera:
    """A domain's camera; temperatures are fractions of the range.

    Attributes:
        noise: standard deviation per sensor cell (NETD).
        columns: standard deviation per column (fixed pattern).
        amplitude: range of the contrast between the coldest and the hottest part.
        weather: relative spread of every part's heat.
        blobs: number of warm blobs of clutter.
        black_hot: probability of inverted polarity.
    """

    noise: float
    columns: float
    amplitude: tuple[float, float]
    weather: float
    blobs: int
    black_hot: float


_CAMERAS: dict[Domain, _Camera] = {
    "web": _Camera(0.012, 0.0, (0.45, 0.85), 0.15, 1, 0.1),
    "sensor": _Camera(0.025, 0.015, (0.4, 0.75), 0.25, 2, 0.2),
}
_BLUR, _HAZE = 0.6, 1.2  # standard deviations in sensor cells: of the optics, and of the strongest haze
_BODY = 0.7  # level of a background at warmth 1: that of a warm animal, so that its outline disappears


def render_thermal(scene: Scene, domain: Domain, hw: tuple[int, int]) -> np.ndarray:
    """Renders the scene.

    Args:
        scene: what is there.
        domain: decides the camera and the clutter.
        hw: the rows and columns of the picture.

    Returns:
        (1, H, W) float32 in [0, 1], rounded to 8 bits.
    """
    camera, g, kind = _CAMERAS[domain], scene.make_stream("thermal"), KINDS[scene.label]
    heat = _draw_surroundings(g, hw, scene, camera)
    f = scene.make_frame(hw)
    for distance, level in zip(kind.thermal.outline(f, scene), kind.thermal.levels, strict=True):
        warm = level * g.uniform(1 - camera.weather, 1 + camera.weather)
        heat += (1 - 0.5 * scene.fog) * f.cover(distance) * (warm - heat)
    return _sense(g, heat, scene, camera)[None]


def _draw_surroundings(g: np.random.Generator, hw: tuple[int, int], scene: Scene, camera: _Camera) -> np.ndarray:
    """Draws sky over ground, with warm blobs, (H, W); 0 is cold, 1 the temperature of the hottest part."""
    x, y = grid(*hw)
    step, horizon, slope = g.uniform(-0.12, 0.12), g.uniform(-0.6, 0.3), g.uniform(-0.2, 0.2)
    heat: np.ndarray = _BODY * scene.warmth + step / (1 + np.exp((y - horizon - slope * x) * 20))
    for _ in range(camera.blobs):
        (cx, cy), r, h = g.uniform(-1, 1, 2), g.uniform(0.1, 0.25), g.uniform(0.1, 0.5)
        heat += h * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * r * r))
    return heat


def _sense(g: np.random.Generator, heat: np.ndarray, scene: Scene, camera: _Camera) -> np.ndarray:
    """Applies haze and optics, gain, vignetting, polarity, column and pixel noise, and rounds to 8 bits."""
    h, w = heat.shape
    x, y = grid(h, w)
    blur = _BLUR + _HAZE * scene.haze
    image = gaussian_filter(heat, (blur * h / SENSOR, blur * w / SENSOR), mode="nearest", truncate=3)
    image = g.uniform(0.1, 0.25) + g.uniform(*camera.amplitude) * image
    image = image * (1 - g.uniform(0.0, 0.12) * (x * x + y * y))
    if g.random() < camera.black_hot:
        image = 1 - image
    noise = camera.noise * g.standard_normal((SENSOR, SENSOR)) + camera.columns * g.standard_normal(SENSOR)
    return quantise(image + cells(noise, (h, w)))
