"""Decodes clips: files -> frames in [0, 1] at an encoder's box, in order, upright."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import preprocess
from rlbench.core.media.contents import explain_content
from rlbench.core.media.stills import MODES, planes

FILMS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg")
LARGEST = 40_000_000  # the most pixels of a frame: 8K has 33 million
Prepare = Callable[..., Tensor]  # a function of `preprocess` on frames: (C, T, H, W), side, antialias
_SMALL = 112  # frames are antialiased for boxes below this side, in pixels
_TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers whose headers give their length
_SHARE, _SLACK = 0.9, 0.5  # a clip that ends before this share of that length, less these seconds, is truncated
_FAR = 2.0  # seconds to the next frame from which on seeking costs less than decoding
_OPTIONS = {"protocol_whitelist": "file,crypto,data"}  # a playlist in place of a film opens no connection


def open_film(path: Path) -> Any:
    """A film as a PyAV container. Raises: what PyAV raises; DataError for a file that is evidently no film."""
    import av

    try:
        return av.open(str(path), options=_OPTIONS)
    except av.FFmpegError:
        if reason := explain_content(path):
            raise DataError(f"can't read the clip {path}: {reason}") from None
        raise


def _find_pictures(container: Any, path: Path) -> Any:
    """The stream of a film's pictures. Raises: DataError if there is none."""
    stream = container.streams.best("video")
    if stream is None:
        about = "only sound" if container.streams.audio else "and no sound: it may be cut"
        raise DataError(f"can't read the clip {path}: it has no pictures, {about}")
    return stream


def is_cut_matroska(path: Path) -> bool:
    """Whether a Matroska or WebM file is shorter than its segment; False for other files and unknown lengths.

    Its elements have an id, a length and a content (RFC 8794); a file is a head and a segment.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    at = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        width = 9 - head[at + 4].bit_length() if len(head) > at + 4 else 9
        if head[at : at + 4] != name or width > 8 or len(head) < at + 4 + width:
            return False
        length = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
        unknown, at = length == (1 << 7 * width) - 1, at + 4 + width + length
    return not unknown and path.stat().st_size < at


def decode_frames(path: Path) -> Iterator[Any]:
    """Decodes the frames of a clip. Raises: what PyAV raises; DataError if the file is truncated."""
    if is_cut_matroska(path):
        raise DataError(f"the clip {path} is cut: it ends before the length that its header says")
    with open_film(path) as container:
        stream = _find_pictures(container, path)
        stream.codec_context.options = {"max_pixels": str(LARGEST)}
        end = 0.0
        for packet in container.demux():
            if packet.is_corrupt:
                raise DataError(f"the clip {path} is cut or damaged: a packet at {end:.2f} s is not whole")
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index == stream.index:
                yield from packet.decode()
        whole = (container.duration or 0) / 1e6 if container.format.name in _TIMED else 0.0
        if end < _SHARE * whole - _SLACK:
            raise DataError(f"the clip {path} is cut: it ends at {end:.2f} s of the {whole:.2f} s that its header says")


def turn_upright(still: np.ndarray, frame: Any, path: Path) -> np.ndarray:
    """(C, H, W) rotated and mirrored by the frame's display matrix, as a player shows it. Raises: DataError."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return still
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(data)[:36])  # (x, y) is shown at (a x + c y, b x + d y)
    straight, across = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, across) > 0.01 * max(straight, across):
        raise DataError(
            f"the clip {path} is rotated by an angle that is not a multiple of 90 degrees; rotate its frames"
        )
    if across > straight:
        still, a, d = still.swapaxes(1, 2), c, b
    return np.ascontiguousarray(still[:, :: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _stills(path: Path, channels: int, wanted: Set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Some of a clip's frames, by number: (C, H, W) uint8, upright. Raises: DataError."""
    with guard(f"can't read the clip {path}"):
        for i, frame in enumerate(decode_frames(path)):
            if i in wanted:
                yield i, turn_upright(planes(frame.to_image().convert(MODES[channels])), frame, path)


def _pick_frames(path: Path, box: Box, choose: Callable[[int], list[int]], prepare: Prepare) -> Tensor:
    """Decodes and prepares some frames of a clip.

    Frames are picked by number, even if their times are uneven. They are antialiased for boxes below 112 pixels, such
    as a mini encoder's.

    Args:
        path: the clip.
        box: (C, T, side, side).
        choose: the number of frames -> which to take.
        prepare: (C, 1, H, W) in [0, 1] -> a frame at the box.

    Returns:
        (frames, ...) in [0, 1].
    """
    channels, _, side, width = box.shape
    if side != width:
        raise DataError(f"clips are for square boxes; the encoder's box is {box.shape}")
    # Decode twice: the count in a header is often wrong, and a long clip does not fit in memory.
    with guard(f"can't read the clip {path}"):
        count = sum(1 for _ in decode_frames(path))
    if not count:
        raise DataError(f"the clip {path} has no frames")
    wanted = choose(count)
    frames = {
        i: prepare(torch.from_numpy(still.astype(np.float32) / 255)[:, None], side, antialias=side < _SMALL)
        for i, still in _stills(path, channels, frozenset(wanted))
    }
    return torch.stack([frames[i] for i in wanted]).clamp(0, 1)  # antialiasing weights sum to 1 only up to rounding


def video(path: Path, box: Box) -> np.ndarray:
    """Loads a clip at a box (C, T, H, W), by `preprocess.frame_numbers` and `preprocess.clip`.

    Returns:
        (C, T, H, W) float32 in [0, 1].
    """
    found = _pick_frames(path, box, partial(preprocess.frame_numbers, frames=box.shape[1]), preprocess.clip)
    return found[:, :, 0].transpose(0, 1).numpy()


def views(path: Path, box: Box, segments: int) -> np.ndarray:
    """Loads views of a clip: `segments` in time (`preprocess.view_frames`) by three in space (`preprocess.thirds`).

    Returns:
        (C, segments * 3 * T, H, W) float32 in [0, 1], one view after the other.
    """
    channels, total, *size = box.shape
    frames = total // (3 * segments)

    def choose(count: int) -> list[int]:
        return [i for run in preprocess.view_frames(count, frames, segments) for i in run]

    found = _pick_frames(path, box, choose, preprocess.thirds).numpy()  # (segments * T, 3, C, 1, H, W)
    split = found.reshape(segments, frames, 3, channels, *size)
    return split.transpose(3, 0, 2, 1, 4, 5).reshape(box.shape)


def read_frames_at(path: Path, times: Sequence[float]) -> list[np.ndarray]:
    """Reads the frames of a film that are shown at some times; seeks to those that are far apart.

    Args:
        path: the film.
        times: in seconds, in any order.

    Returns:
        (H, W, 3) uint8 for each time: the nearest frame, at most half a frame away.

    Raises:
        DataError: the film can't be read, or has no frame at a time.
    """
    found: dict[float, np.ndarray] = {}
    with guard(f"can't read the clip {path}"), open_film(path) as container:
        stream = _find_pictures(container, path)
        stream.codec_context.options = {"max_pixels": str(LARGEST)}
        half = 0.5 / float(stream.average_rate or 30)
        frames, at, frame = container.decode(stream), -1.0, None
        for time in sorted(set(times)):
            if time - at > _FAR:
                container.seek(max(0, int((time - half) / stream.time_base)), stream=stream)
                frames, at = container.decode(stream), -1.0
            while at < time - half:
                frame = next(frames, None)
                if frame is None:
                    break
                at = float(frame.pts * stream.time_base)
            if frame is None or abs(at - time) > half + 1e-4:
                raise DataError(f"the clip {path} has no frame at {time:.3f} s")
            found[time] = frame.to_ndarray(format="rgb24")
    return [found[time] for time in times]
