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


def write_talkie(path: Path, hertz: float = 1000.0, rate: int = 16_000) -> None:
    """Writes a grey clip of half a second with a tone of a second.

    Args:
        path: the file; its suffix is the container.
        hertz: the frequency of the tone.
        rate: samples a second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=8)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound = container.add_stream("aac", rate=rate)
        for t in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 40 * t, dtype=np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        samples.sample_rate = rate
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
