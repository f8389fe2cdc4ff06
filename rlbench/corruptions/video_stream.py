"""Corruptions of clips by compression and lossy links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from rlbench.core.registry import register
from rlbench.corruptions.video_time import ClipCorruption

Rng = np.random.Generator
GRID = 8  # blocks across a frame's shorter side


@register("corruption", "h264")
@dataclass(frozen=True, kw_only=True)
class H264(ClipCorruption):
    """Video: H.264 at a constant rate factor, by PyAV's libx264: one intra frame, then predicted frames, 4:2:0.

    After Mini Kinetics-C (Yi et al., 2021, https://arxiv.org/abs/2110.06513), whose code uses factors 23 to 51 for
    large frames: at 32 pixels, 23 costs nothing, and 51 leaves a single colour. Frames are padded by their edges to
    even sizes of at least 16. One thread and a fixed preset make a build of libx264 deterministic.
    """

    levels = (25, 29, 33, 37, 41)
    unit = "CRF"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        channels, _, h, w = x.shape
        frames = np.round(x * 255).astype(np.uint8).transpose(1, 2, 3, 0)
        rgb = np.broadcast_to(frames, (*frames.shape[:3], 3)) if channels == 1 else frames
        more = [(0, max(16, size + size % 2) - size) for size in (h, w)]
        coded = _transcode(np.pad(rgb, ((0, 0), *more, (0, 0)), mode="edge"), int(level))
        return coded[:, :h, :w, :channels].transpose(3, 0, 1, 2) / 255


def _transcode(frames: np.ndarray, crf: int) -> np.ndarray:
    """Encodes and decodes (T, H, W, 3) uint8 in memory."""
    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1
    # No assembly: with it, equal frames occasionally give different bytes (seen with AVX-512).
    encoder.options = {"crf": str(crf), "preset": "medium", "bframes": "0", "x264-params": "asm=0"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1

    def packets() -> Iterator[Any]:
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = k
            yield from encoder.encode(picture)
        yield from encoder.encode(None)

    pictures = chain.from_iterable(decoder.decode(packet) for packet in chain(packets(), [None]))
    return np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])


@register("corruption", "packet_loss")
@dataclass(frozen=True, kw_only=True)
class PacketLoss(ClipCorruption):
    """Video: simulated packet loss: blocks freeze, displaced, from a random frame to the end of the clip.

    As in a decoder that conceals lost slices by the previous frame, with wrong motion, until the next intra frame. Yi
    et al., 2021, https://arxiv.org/abs/2110.06513, and Liu et al., 2023, https://arxiv.org/abs/2309.13890, corrupt real
    streams; at 32 pixels a frame is one packet, so losing it would only freeze the clip. The level is the share of
    blocks.
    """

    levels = (0.1, 0.2, 0.35, 0.5, 0.7)
    unit = "of blocks"

    def apply(self, x: np.ndarray, level: float, g: Rng) -> np.ndarray:
        _, frames, h, w = x.shape
        size = max(2, min(h, w) // GRID)
        rows, columns = np.arange(h) // size, np.arange(w) // size
        many = (rows[-1] + 1) * (columns[-1] + 1)
        lost = (g.permutation(many) < max(1, round(level * many))).reshape(rows[-1] + 1, -1)
        begins = g.integers(1, max(2, frames), lost.shape)
        since = np.where(lost, begins, frames)[rows][:, columns]
        dy, dx = g.integers(-size, size + 1, 2)
        out = x.copy()
        for t in range(1, frames):
            moved = np.roll(out[:, t - 1], (dy, dx), (1, 2))
            held = np.where(since == t, moved, out[:, t - 1])
            out[:, t] = np.where(since <= t, held, x[:, t])
        return out
