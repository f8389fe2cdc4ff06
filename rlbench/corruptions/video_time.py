"""Corruptions of clips in time: frames that are lost, late, or out of order.

After the temporal corruptions of Yi et al., 2021, https://arxiv.org/abs/2110.06513 (frame rate, frame drop), and of
Schiappa et al., 2022, https://arxiv.org/abs/2207.01398 (freezing, jumbling, reversal). Levels are shares of the clip,
so that they do not depend on the number of frames. A clip of one frame is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlbench.core import Modality
from rlbench.core.registry import register
from rlbench.corruptions.levels import Levelled

Rng = np.random.Generator


class ClipCorruption(Levelled):
    """A corruption of (C, T, H, W)."""

    modalities: ClassVar[frozenset[Modality]] = frozenset({"video"})
    dimensions = (4,)


def _count(share: float, frames: int, least: int) -> int:
    """The number of frames in a share: at least `least`, at most all."""
    return min(frames, max(least, round(share * frames)))


@register("corruption", "frame_drop")
@dataclass(frozen=True, kw_only=True)
class FrameDrop(ClipCorruption):
    """Video: random frames are lost, and the previous one is shown again. The first is never lost."""

    levels = (0.25, 0.375, 0.5, 0.625, 0.75)
    unit = "of frames"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        frames = x.shape[1]
        lost = 1 + g.permutation(frames - 1)[: _count(level, frames, 1)]
        shown = np.arange(frames)
        shown[lost] = 0
        return x[:, np.maximum.accumulate(shown)]


@register("corruption", "freeze")
@dataclass(frozen=True, kw_only=True)
class Freeze(ClipCorruption):
    """Video: the picture freezes for a while, then jumps to the current frame."""

    levels = (0.25, 0.375, 0.5, 0.625, 0.75)
    unit = "of frames"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        frames = x.shape[1]
        length = min(_count(level, frames, 1), frames - 1)
        start = g.integers(0, frames - length)
        t = np.arange(frames)
        return x[:, np.where((start < t) & (t <= start + length), start, t)]


@register("corruption", "frame_shuffle")
@dataclass(frozen=True, kw_only=True)
class FrameShuffle(ClipCorruption):
    """Video: the frames of a stretch arrive out of order."""

    levels = (0.25, 0.375, 0.5, 0.75, 1.0)
    unit = "of the clip"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        order = np.arange(x.shape[1])
        length = _count(level, len(order), 2)
        start = g.integers(0, len(order) - length + 1)
        stretch = order[start : start + length]
        while length > 1 and (np.diff(stretch) == 1).all():
            stretch[:] = g.permutation(stretch)
        return x[:, order]


@register("corruption", "reverse")
@dataclass(frozen=True, kw_only=True)
class Reverse(ClipCorruption):
    """Video: a stretch plays backwards, as from a ring buffer that is read during a write.

    If classes are directions (left or right, growing or shrinking), high severities may change the label itself.
    """

    levels = (0.25, 0.375, 0.5, 0.625, 0.75)
    unit = "of the clip"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        frames = x.shape[1]
        length = _count(level, frames, 2)
        start = g.integers(0, frames - length + 1)
        order = np.arange(frames)
        order[start : start + length] = order[start : start + length][::-1]
        return x[:, order]


@register("corruption", "frame_rate")
@dataclass(frozen=True, kw_only=True)
class FrameRate(ClipCorruption):
    """Video: a low frame rate, 1/2 to 1/32 of the original; each frame is held until the next one.

    A clip of T < 32 frames has 1 / T ** (severity / 5) of its rate instead, so that severity 5 is always a still.
    """

    levels = (2, 4, 8, 16, 32)
    unit = "times slower"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        frames = x.shape[1]
        hold = level if frames >= 32 else frames ** (np.log2(level) / 5)
        t = np.arange(frames)
        return x[:, (np.floor(t / hold + 1e-9) * hold + 1e-9).astype(int)]
