"""A corrupted copy of a film: H.264 with the times of the original's frames; sound and other streams as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count as count_up
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.clips import decode_frames, open_film, turn_upright
from rlbench.core.media.stills import planes
from rlbench.corruptions.copies.corruptor import CLIP, VALUES, Corruptor

WRITTEN = (".mp4", ".mkv", ".mov", ".m4v")  # containers of H.264 that store times of frames; AVI does not
CODEC, PIXELS = "h264", "yuv420p"
# One thread, no assembly, no B-frames: the same frames give the same bytes, and frames keep their times.
_OPTIONS = {"crf": "10", "preset": "veryfast", "g": "2", "bf": "0", "threads": "1", "x264-params": "asm=0"}
Frame = tuple[int, np.ndarray]  # time in units of the stream's, and (H, W, 3) uint8


def copy_film(source: Path, target: Path, corruptor: Corruptor, stream: str, advance: Callable[[int], None]) -> int:
    """Copies a film with its pictures corrupted.

    Args:
        source: the film.
        target: of the copy; its suffix is one of WRITTEN.
        corruptor: what to do.
        stream: the name that random draws depend on, such as a camera's.
        advance: called with the number of frames so far.

    Returns:
        The number of frames.

    Raises:
        Unfit: the corruption refuses the pictures.
        DataError: the film can't be read or written.
    """
    count, film = 0, None
    try:
        for at, pixels in _corrupt(_decode(source), corruptor, stream):
            film = film or _Writer(source, target, pixels)
            film.write(at, pixels)
            count += 1
            advance(count)
    finally:
        if film is not None:
            film.close()
    if not count:
        raise DataError(f"the clip {source} has no frames")
    return count


def _decode(path: Path) -> Iterator[Frame]:
    """Yields a film's frames, upright. Raises: DataError."""
    with guard(f"can't read the clip {path}"):
        for frame in decode_frames(path):
            still = turn_upright(planes(frame.to_image()), frame, path)
            yield frame.pts, still.transpose(1, 2, 0)


def _corrupt(frames: Iterator[Frame], corruptor: Corruptor, stream: str) -> Iterator[Frame]:
    """Yields frames corrupted, one at a time or, for a corruption of clips, many at a time. Raises: Unfit."""
    if not corruptor.clips:
        for at, pixels in frames:
            yield at, corruptor.change_picture(pixels, stream, at)
        return
    some = list(islice(frames, 1))
    size = min(CLIP, max(2, VALUES // some[0][1].size)) if some else 0
    for part in count_up():
        some += islice(frames, size - len(some))
        if not some:
            return
        changed = corruptor.change_clip([pixels for _, pixels in some], stream, part)
        yield from zip((at for at, _ in some), changed, strict=True)
        some = []


class _Writer:
    """Writes a film like another one: its frames' times, and its other streams."""

    def __init__(self, source: Path, target: Path, pixels: np.ndarray) -> None:
        import av

        self.path = target
        with guard(f"can't write the clip {target}"), ExitStack() as stack:
            film = stack.enter_context(open_film(source))
            self.copy = stack.enter_context(av.open(str(target), "w"))
            video = film.streams.best("video") or film.streams.video[0]
            self.unit, self.others = video.time_base, {}
            self.out = self.copy.add_stream("libx264", rate=video.average_rate or 25, options=dict(_OPTIONS))
            height, width = pixels.shape[:2]
            self.out.height, self.out.width = height, width
            self.out.pix_fmt = "yuv444p" if height % 2 or width % 2 else PIXELS  # 4:2:0 needs even sizes
            self.out.codec_context.time_base = self.unit
            for one in film.streams:
                if one.type in ("audio", "subtitle"):
                    self.others[one.index] = self.copy.add_stream_from_template(one)
            self.packets = film.demux([one for one in film.streams if one.index in self.others])
            self.next: Any = next(self.packets, None) if self.others else None
            self.stack = stack.pop_all()

    def write(self, at: int, pixels: np.ndarray) -> None:
        """Writes a frame at a time, after what other streams have until then. Raises: DataError."""
        import av

        with guard(f"can't write the clip {self.path}"):
            self._copy_others(float(at * self.unit))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = at, self.unit
            self.copy.mux(self.out.encode(frame))

    def _copy_others(self, until: float) -> None:
        while self.next is not None and (self.next.dts is None or self.next.dts * self.next.time_base <= until):
            if self.next.dts is not None:  # the last packet of a stream is empty
                self.next.stream = self.others[self.next.stream.index]
                self.copy.mux(self.next)
            self.next = next(self.packets, None)

    def close(self) -> None:
        """Writes what is left, and closes the files. Raises: DataError."""
        with guard(f"can't write the clip {self.path}"), self.stack:
            self.copy.mux(self.out.encode())
            self._copy_others(float("inf"))
