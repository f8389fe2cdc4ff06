"""Signed distances to simple shapes on a coordinate grid, from which the picture worlds are drawn.

A distance is negative inside. x points right and y up, both in [-1, 1] over the picture, so that a scene does
not depend on the number of pixels. Computation is in float64, so that rounding differences between machines hardly
ever change an 8-bit level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

SENSOR = 32  # noise has one value per cell of a SENSOR x SENSOR grid, for any box
Point = tuple[float, float]


@cache
def grid(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of the pixel centres, (h, w) each."""
    x, y = np.meshgrid((2 * np.arange(w) + 1) / w - 1, 1 - (2 * np.arange(h) + 1) / h)
    return x, y


@dataclass(frozen=True)
class Frame:
    """The coordinates x and y in an object's frame, (H, W) each, and the width of a pixel there."""

    x: np.ndarray
    y: np.ndarray
    pixel: float

    def disc(self, cx: float, cy: float, r: float) -> np.ndarray:
        distance: np.ndarray = np.hypot(self.x - cx, self.y - cy) - r
        return distance

    def oval(self, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        """An axis-parallel ellipse; the distance is exact on the outline only."""
        radius: np.ndarray = np.hypot((self.x - cx) / rx, (self.y - cy) / ry)
        return (radius - 1) * min(rx, ry)

    def ring(self, cx: float, cy: float, r: float, width: float) -> np.ndarray:
        """A circle of radius r drawn with a pen of half-width `width`."""
        off: np.ndarray = np.abs(self.disc(cx, cy, r))
        return off - width

    def block(self, cx: float, cy: float, half_x: float, half_y: float) -> np.ndarray:
        """An axis-parallel rectangle."""
        outside: np.ndarray = np.maximum(np.abs(self.x - cx) - half_x, np.abs(self.y - cy) - half_y)
        return outside

    def strokes(self, width: float, *lines: tuple[float, float, float, float]) -> np.ndarray:
        """The union of segments (x0, y0, x1, y1) drawn with a round pen of half-width `width`."""
        x0, y0, x1, y1 = np.array(lines).T[:, :, None, None]
        ux, uy, px, py = x1 - x0, y1 - y0, self.x - x0, self.y - y0
        along = np.clip((px * ux + py * uy) / (ux * ux + uy * uy), 0, 1)
        squared: np.ndarray = (px - along * ux) ** 2 + (py - along * uy) ** 2
        nearest: np.ndarray = np.sqrt(squared.min(axis=0))
        return nearest - width

    def path(self, width: float, *points: Point) -> np.ndarray:
        """An open polyline drawn with a round pen."""
        return self.strokes(width, *((*a, *b) for a, b in pairwise(points)))

    def convex(self, *corners: Point) -> np.ndarray:
        """A convex polygon, corners counter-clockwise: the largest distance from its sides' lines."""
        c = np.array(corners)
        side = np.roll(c, -1, axis=0) - c
        nx, ny = (np.stack([side[:, 1], -side[:, 0]]) / np.hypot(side[:, 0], side[:, 1]))[:, :, None, None]
        outside: np.ndarray = nx * (self.x - c[:, :1, None]) + ny * (self.y - c[:, 1:, None])
        return outside.max(axis=0)  # type: ignore[no-any-return]

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """The fraction of every pixel that is inside, in [0, 1]."""
        inside: np.ndarray = np.clip(0.5 - distance / self.pixel, 0, 1)
        return inside


def pose(
    g: np.random.Generator, hw: tuple[int, int], *, turn: float, scale: Point, shift: float, stretch: float = 0
) -> Frame:
    """Draws an object's frame: rotated by U(-turn, turn), scaled, shifted, and mirrored with probability 1/2.

    Width over height varies by a factor of exp(U(-stretch, stretch)).
    """
    angle, size, wide = g.uniform(-turn, turn), g.uniform(*scale), np.exp(g.uniform(-stretch, stretch) / 2)
    x, y = g.uniform(-shift, shift, 2)
    return place(hw, x=x, y=y, turn=angle, size=size, wide=wide, mirror=1 if g.random() < 0.5 else -1)


def place(
    hw: tuple[int, int], *, x: float, y: float, turn: float = 0, size: float = 1, wide: float = 1, mirror: int = 1
) -> Frame:
    """Makes the frame of an object.

    Args:
        hw: the picture's rows and columns.
        x: the place of the object's centre.
        y: the same, upwards.
        turn: the angle in radians, counter-clockwise.
        size: the length of the object's unit.
        wide: the factor by which its width grows and its height shrinks.
        mirror: -1 to flip it, 1 not to.
    """
    right, up = grid(*hw)
    cos, sin = np.cos(turn) / size, np.sin(turn) / size
    right, up = right - x, up - y
    u, v = (cos * right + sin * up) * (mirror / wide), (cos * up - sin * right) * wide
    return Frame(u, v, 2 / min(hw) / size)


def smooth(values: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Interpolates values at the corners of a mesh over the picture linearly, (..., n, m) -> (..., h, w)."""
    rows, columns = (_weights(n, size) for n, size in zip(values.shape[-2:], hw, strict=True))
    fine: np.ndarray = rows @ values @ columns.T
    return fine


@cache
def _weights(n: int, size: int) -> np.ndarray:
    at = (np.arange(size) + 0.5) / size * (n - 1)
    near: np.ndarray = 1 - np.abs(at[:, None] - np.arange(n))
    return near.clip(0, 1)


def cells(values: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Gives every pixel the value of the sensor cell it is in, (..., n, m) -> (..., h, w)."""
    n, m = values.shape[-2:]
    rows, columns = np.arange(hw[0]) * n // hw[0], np.arange(hw[1]) * m // hw[1]
    return values[..., rows[:, None], columns]


def union(*distances: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = np.minimum.reduce(distances)
    return nearest


def quantise(picture: np.ndarray) -> np.ndarray:
    """Rounds to 8-bit levels in [0, 1]."""
    levels: np.ndarray = np.round(np.clip(picture, 0, 1) * 255).astype(np.float32)
    return levels / np.float32(255)


Parts = Sequence[tuple[np.ndarray, float]]  # (distance, heat): later parts cover earlier ones
