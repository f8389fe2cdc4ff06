"""Writes small films for tests."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np


def write_film(
    path: Path, frames: Sequence[np.ndarray], codec: str = "mpeg4", *, pix_fmt: str = "yuv420p", **options: str
) -> bytes:
    """Writes a film at 10 frames a second, and returns the file's bytes.

    Args:
        path: the file; its suffix is the container.
        frames: (H, W, 3) uint8 each.
        codec: "ffv1" with pix_fmt "bgr0" is lossless.
        pix_fmt: how the codec stores pixels.
        options: of the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pix_fmt, 4_000_000
        for rows in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rows), format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()
