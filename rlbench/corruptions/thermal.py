"""Corruptions of thermal images by detector, electronics, optics and atmosphere.

Values are temperatures as shares of the displayed range, and lengths are shares of the picture's height, so that all
sizes look alike. The faults are those of Vollmer and Moellmann, Infrared Thermal Imaging, 2018,
https://doi.org/10.1002/9783527693306. No published benchmark for classification was found, so the levels are rlbench's:
severity 1 is a camera in need of service; at severity 5 a person still recognises the object.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, shift

from rlbench.core import Modality
from rlbench.core.registry import register
from rlbench.corruptions.levels import Levelled

Rng = np.random.Generator


class ThermalCorruption(Levelled):
    """A corruption of (C, H, W) pictures of one camera: all channels get the same disturbance."""

    modalities: ClassVar[frozenset[Modality]] = frozenset({"thermal"})
    dimensions = (3,)


def _radius(h: int, w: int, y: float = 0.5, x: float = 0.5) -> np.ndarray:
    """(H, W) distances, in heights, from a point given as shares of height and width."""
    rows, columns = (np.arange(h) + 0.5) / h - y, ((np.arange(w) + 0.5) / w - x) * w / h
    return np.asarray(np.hypot(rows[:, None], columns[None]))


@register("corruption", "netd")
@dataclass(frozen=True, kw_only=True)
class Netd(ThermalCorruption):
    """Thermal: temporal noise; the level is the noise-equivalent temperature difference.

    White gaussian noise: sigma_TVH of the three-dimensional noise model (D'Agostino and Webb, 1991,
    Proc. SPIE 1488, 110-121).
    """

    redraws = True
    levels = (0.03, 0.05, 0.075, 0.105, 0.14)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return x + level * g.standard_normal(x.shape[1:])


@register("corruption", "fixed_pattern_noise")
@dataclass(frozen=True, kw_only=True)
class FixedPattern(ThermalCorruption):
    """Thermal: column stripes, and row stripes of half the amplitude, from detector read-out.

    sigma_H and sigma_V of the three-dimensional noise model (D'Agostino and Webb, 1991, Proc. SPIE 1488, 110-121).
    """

    levels = (0.03, 0.055, 0.08, 0.11, 0.14)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        columns, rows = g.standard_normal((1, x.shape[2])), g.standard_normal((x.shape[1], 1))
        return x + level * (columns + rows / 2)


@register("corruption", "dead_pixels")
@dataclass(frozen=True, kw_only=True)
class DeadPixels(ThermalCorruption):
    """Thermal: stuck pixels, half of them black (dead) and half white (hot).

    Cameras usually replace bad pixels by their neighbours; here they do not (Vollmer and Moellmann, 2018,
    https://doi.org/10.1002/9783527693306).
    """

    levels = (0.005, 0.01, 0.02, 0.04, 0.08)
    unit = "of pixels"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        h, w = x.shape[1:]
        stuck = g.permutation(h * w).reshape(h, w) < max(1, round(level * h * w))
        return np.where(stuck, g.random((h, w)) < 0.5, x)


@register("corruption", "narrow_range")
@dataclass(frozen=True, kw_only=True)
class NarrowRange(ThermalCorruption):
    """Thermal: low contrast: the scene fills only a share of the displayed range, around its mean.

    As at thermal crossover or in rain, when object and surroundings are equally warm, with a fixed span (Vollmer and
    Moellmann, 2018, https://doi.org/10.1002/9783527693306).
    """

    levels = (0.65, 0.5, 0.38, 0.27, 0.18)
    unit = "of contrast"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        mean = x.mean((1, 2), keepdims=True)
        return np.asarray(mean + level * (x - mean))


@register("corruption", "agc_shift")
@dataclass(frozen=True, kw_only=True)
class AgcShift(ThermalCorruption):
    """Thermal: automatic gain control at the wrong level, up or down; at severity 5 the polarity is inverted too.

    White-hot then becomes black-hot, a setting that operators switch (Vollmer and Moellmann, 2018,
    https://doi.org/10.1002/9783527693306).
    """

    levels = (0.1, 0.16, 0.22, 0.28, 0.36)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.asarray((1 - x if level == self.levels[-1] else x) + level * g.choice((-1, 1)))

    def level(self, severity: int) -> str:
        return super().level(severity) + (", inverted" if severity == 5 else "")


@register("corruption", "lens_defocus")
@dataclass(frozen=True, kw_only=True)
class LensDefocus(ThermalCorruption):
    """Thermal: defocus of a germanium lens that warms up; gaussian blur.

    Its focus drifts with temperature, as germanium's refractive index does (Vollmer and Moellmann, 2018,
    https://doi.org/10.1002/9783527693306).
    """

    levels = (0.02, 0.035, 0.048, 0.062, 0.078)
    unit = "of height"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        sigma = level * x.shape[1]
        return np.asarray(gaussian_filter(x, (0, sigma, sigma), mode="nearest"))


@register("corruption", "platform_motion")
@dataclass(frozen=True, kw_only=True)
class PlatformMotion(ThermalCorruption):
    """Thermal: motion of the platform while a microbolometer settles: a smear with an exponential tail.

    The detector's step response is 1 - exp(-t / tau), with tau about 10 ms (Vollmer and Moellmann, 2018,
    https://doi.org/10.1002/9783527693306); the level is the motion during tau, in a random direction.
    """

    levels = (0.04, 0.07, 0.1, 0.14, 0.18)
    unit = "of height"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        angle, tau = g.uniform(0, 2 * np.pi), level * x.shape[1]
        lags = np.linspace(0, 3, max(4, int(np.ceil(6 * tau))))  # in tau, so that copies are half a pixel apart
        weights = np.exp(-lags) / np.exp(-lags).sum()
        moves = np.outer(lags * tau, (np.sin(angle), np.cos(angle)))
        copies = (w * shift(x, (0, *move), order=1, mode="nearest") for w, move in zip(weights, moves, strict=True))
        return np.asarray(sum(copies))


@register("corruption", "lens_heating")
@dataclass(frozen=True, kw_only=True)
class LensHeating(ThermalCorruption):
    """Thermal: vignetting from the warm lens barrel; quadratic, with its level in the corner.

    As in a camera without a shutter, or one not corrected for long (Vollmer and Moellmann, 2018,
    https://doi.org/10.1002/9783527693306).
    """

    levels = (0.2, 0.35, 0.5, 0.7, 0.95)
    unit = "of range"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        y, x0 = g.uniform(0.4, 0.6, 2)
        h, w = x.shape[1:]
        r = _radius(h, w, y, x0)
        return np.asarray(x + level * (r / r.max()) ** 2)


@register("corruption", "hot_source")
@dataclass(frozen=True, kw_only=True)
class HotSource(ThermalCorruption):
    """Thermal: a hot source in view: a saturated spot with glare, and a gain control that dims the rest.

    The level is the spot's radius; the rest keeps 1 - 2.5 x level of its contrast with the coldest pixel (Vollmer
    and Moellmann, 2018, https://doi.org/10.1002/9783527693306).
    """

    levels = (0.03, 0.055, 0.085, 0.12, 0.17)
    unit = "of height"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        angle, far = g.uniform(0, 2 * np.pi), g.uniform(0.3, 0.5)  # off centre, so that the object stays visible
        h, w = x.shape[1:]
        r = _radius(h, w, 0.5 + far * np.sin(angle), 0.5 + far * np.cos(angle))
        coldest = x.min(axis=(1, 2), keepdims=True)
        dimmed = coldest + (1 - 2.5 * level) * (x - coldest)
        return np.asarray(dimmed + 2 * np.exp(-((r / level) ** 2) * np.log(2)))


@register("corruption", "turbulence")
@dataclass(frozen=True, kw_only=True)
class Turbulence(ThermalCorruption):
    """Thermal: atmospheric turbulence over hot ground: a small random warp; the level is its standard deviation.

    Tilts are smooth over 0.08 of the height, with a blur of a third of them: the two terms of anisoplanatic turbulence
    (Chimitt and Chan, 2020, https://arxiv.org/abs/2004.11210), here as gaussian fields rather than Zernike modes.
    """

    redraws = True
    levels = (0.012, 0.022, 0.033, 0.044, 0.056)
    unit = "of height"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        h, w = x.shape[1:]
        reach, sigma = 0.08 * h, level * h / 3
        tilts = gaussian_filter(g.standard_normal((2, h, w)), (0, reach, reach), mode="wrap")
        tilts *= level * h / tilts.std()
        places = np.indices((h, w)) + tilts
        soft = gaussian_filter(x, (0, sigma, sigma), mode="nearest")
        return np.stack([map_coordinates(channel, places, order=1, mode="nearest") for channel in soft])


@register("corruption", "bit_depth")
@dataclass(frozen=True, kw_only=True)
class BitDepth(ThermalCorruption):
    """Thermal: banding: few grey levels, as when a narrow scene is shown over a 14-bit detector's wide span.

    16 or more are hardly visible: on the bundled world's validation examples they cost the backbone 0.2 points.
    """

    levels = (10, 8, 6, 5, 4)
    unit = "grey levels"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.asarray(np.round(x * (level - 1)) / (level - 1))


@register("corruption", "jpeg_stream")
@dataclass(frozen=True, kw_only=True)
class JpegStream(ThermalCorruption):
    """Thermal: JPEG of a narrow video link, by Pillow; at lower qualities than ImageNet-C's 25 to 7.

    Thermal pictures have less detail: on the bundled world, 25 to 15 are invisible. JPEG: Wallace, 1992,
    https://doi.org/10.1109/30.125072.
    """

    levels = (12, 9, 7, 5, 3)
    unit = "quality"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        return np.stack([_jpeg(channel, int(level)) for channel in x])


def _jpeg(channel: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.round(channel * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255
