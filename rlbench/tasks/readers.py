"""Media files -> arrays in [0, 1] at an encoder's box; pictures keep 8-bit values, in steps of 1/255."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import signal
from torch import Tensor

from rlbench import preprocess
from rlbench.box import Box, Fill, Fit
from rlbench.core import Modality
from rlbench.errors import DataError
from rlbench.tasks.mel import logmel

VERSIONS: dict[Modality, int] = {"video": 2}  # if not 1: raise it on any change of a value that is read
Prepare = Callable[..., Tensor]  # a function of `preprocess` on frames: (C, T, H, W), side, antialias
_MODES = {1: "L", 3: "RGB"}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
FILMS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".opus")
_SMALL = 112  # pixels of a box for which frames are smoothed
_WIDE = ("I", "F")  # more than 8 bits: Pillow's conversion would clip them


def planes(picture: Image.Image) -> np.ndarray:
    """(C, H, W) uint8."""
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


def picture(path: Path, channels: int) -> Image.Image:
    """A whole picture, upright, in 8 bits: RGB for three channels, grey for one. Raises: DataError."""
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(_WIDE):
                raise DataError(f"{path} has more than 8 bits a pixel ({opened.mode}); convert it to 8 bits")
            return ImageOps.exif_transpose(opened).convert(_MODES[channels])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"can't read the image {path}: {error}") from error


def pixels(picture: Image.Image, box: Box) -> np.ndarray:
    """A picture in memory, as `box.fit` says: by default bicubic to the box's short side, centre crop.

    Returns:
        (C, H, W) float32 in [0, 1].
    """
    channels, rows, columns = box.shape
    picture = picture.convert(_MODES[channels])
    if isinstance(box.fit, Fit):
        return planes(box.fit(picture, rows, columns)).astype(np.float32) / 255
    return planes(ImageOps.fit(picture, (columns, rows), Image.Resampling.BICUBIC)).astype(np.float32) / 255


def image(path: Path, box: Box, part: Sequence[float] = ()) -> np.ndarray:
    """A picture: RGB for a box of three channels, grey for one; to the box's size by `pixels`.

    Args:
        path: the file.
        box: the encoder's.
        part: left, top, right, bottom in pixels of what is cut out first; nothing for the whole.

    Returns:
        (C, H, W) float32 in [0, 1].
    """
    whole = picture(path, box.shape[0])
    if part:
        left, top, right, bottom = (round(edge) for edge in part)
        edges = max(left, 0), max(top, 0), min(right, whole.width), min(bottom, whole.height)
        if edges[0] >= edges[2] or edges[1] >= edges[3]:
            raise DataError(
                f"{path} is {whole.width} x {whole.height}; nothing of it lies in {left, top, right, bottom}"
            )
        whole = whole.crop(edges)
    return pixels(whole, box)


def depth(path: Path, box: Box) -> np.ndarray:
    """A depth picture of 16 bits in millimetres, as `preprocess.depth` prepares it; every channel is the same.

    Returns:
        (C, H, W) float32 in [0, 1].
    """
    try:
        with Image.open(path) as opened:
            if not opened.mode.startswith("I"):
                raise DataError(f"{path} is {opened.mode}; a depth picture has 16 bits a pixel, in millimetres")
            millimetres = np.asarray(opened).astype(np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"can't read the depth picture {path}: {error}") from error
    channels, height, width = box.shape
    if height != width:
        raise DataError(f"depth is for square boxes; the encoder's box is {box.shape}")
    near = preprocess.depth(torch.from_numpy(millimetres), height)
    return near.expand(channels, -1, -1).numpy()


def window(wave: np.ndarray, length: int, fill: Fit | Fill | None = None) -> np.ndarray:
    """The `length` samples of most energy; a shorter wave is filled as a box's `fit` says, or centred in silence."""
    if isinstance(fill, Fill) and len(wave) < length:
        return fill(wave, length)
    if len(wave) <= length:
        before = (length - len(wave)) // 2
        return np.pad(wave, (before, length - len(wave) - before))
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return wave[start : start + length]


def _sound(path: Path) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 in [-1, 1] of a sound file, and its rate. Raises: DataError."""
    import soundfile

    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"can't read the recording {path}: {error}") from error
    return channels, rate


def _track(path: Path) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 in [-1, 1] of a film's first sound track, and its rate. Raises: DataError."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise DataError(f"the film {path} has no sound")
            plain = av.AudioResampler(format="fltp")
            frames = [part for frame in container.decode(audio=0) for part in plain.resample(frame)]
            rate = int(container.streams.audio[0].rate)
    except (OSError, av.FFmpegError) as error:
        raise DataError(f"can't read the sound of {path}: {error}") from error
    if not frames:
        raise DataError(f"the film {path} has no sound")
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, rate


def audio(path: Path, box: Box, *, rate: int, seconds: float) -> np.ndarray:
    """A recording, or a film's sound, at the box: `heard` of what is `audible`.

    Returns:
        (1, mels, frames) or (1, samples) float32 in [0, 1]; a waveform's zero is at 1/2.
    """
    return heard(*audible(path, box, rate=rate, seconds=seconds), box)


def audible(path: Path, box: Box, *, rate: int, seconds: float) -> tuple[np.ndarray, int]:
    """What a box takes of a recording, (samples,) float32 in [-1, 1], and its rate.

    The mean of its channels, resampled to `rate`, cut or padded by `window`: for a log-mel box `seconds` of it, for a
    waveform box as many samples as it has, at its own rate if it has one. For a box of unit "fbank" the first channel
    as a whole, at its own rate.
    """
    channels, own_rate = _track(path) if path.suffix.lower() in FILMS else _sound(path)
    wave = channels.mean(1)
    if not wave.size or not np.isfinite(wave).all():
        raise DataError(f"the recording {path} has no samples, or some that are not finite")
    if box.unit == "fbank":
        if len(wave) < 0.025 * own_rate:
            raise DataError(f"the recording {path} is shorter than 25 ms")
        return channels[:, 0], own_rate
    rate = box.rate or rate
    common = gcd(rate, own_rate)
    if own_rate != rate:
        wave = signal.resample_poly(wave, rate // common, own_rate // common)
    return window(wave, box.shape[-1] if box.unit == "waveform" else round(seconds * rate), box.fit), rate


def heard(wave: np.ndarray, rate: int, box: Box) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> a box of unit log-mel, "fbank" (`preprocess.heard`) or waveform, in [0, 1]."""
    if box.unit == "fbank":
        mel = preprocess.heard(torch.from_numpy(wave[None]), rate, box)[0].numpy()
        return np.asarray((mel - box.low) / (box.high - box.low))
    if box.unit == "waveform":
        return np.clip((wave[None] + 1) / 2, 0, 1).astype(np.float32)
    return logmel(wave, rate, box)


def _frames(path: Path) -> Iterator[Any]:
    """Decodes a clip, one PyAV frame at a time."""
    import av

    with av.open(str(path)) as container:
        yield from container.decode(video=0)


def _picked(path: Path, box: Box, choose: Callable[[int], list[int]], prepare: Prepare) -> Tensor:
    """The frames of a clip that `choose` names, given their number, each (C, 1, H, W) in [0, 1] as `prepare` makes it.

    Frames are smoothed for boxes below 112 pixels, such as a mini encoder's, where little would be left of them.

    Returns:
        (frames, ...).
    """
    import av

    channels, _, side, width = box.shape
    if side != width:
        raise DataError(f"clips are for square boxes; the encoder's box is {box.shape}")
    try:
        # Twice, since the count in a file's header is often wrong and a long clip does not fit in memory.
        count = sum(1 for _ in _frames(path))
        if not count:
            raise DataError(f"the clip {path} has no frames")
        wanted, kept = choose(count), {}
        for i, frame in enumerate(_frames(path)):
            if i in wanted:
                still = planes(frame.to_image().convert(_MODES[channels])).astype(np.float32) / 255
                kept[i] = prepare(torch.from_numpy(still)[:, None], side, antialias=side < _SMALL)
    except (OSError, IndexError, av.FFmpegError) as error:
        raise DataError(f"can't read the clip {path}: {error}") from error
    return torch.stack([kept[i] for i in wanted])


def video(path: Path, box: Box) -> np.ndarray:
    """A clip as `preprocess.clip` prepares it, of as many frames as the box has: `preprocess.frame_numbers`.

    Returns:
        (C, T, H, W) float32 in [0, 1].
    """
    found = _picked(path, box, partial(preprocess.frame_numbers, frames=box.shape[1]), preprocess.clip)
    return found[:, :, 0].transpose(0, 1).numpy()


def views(path: Path, box: Box, segments: int) -> np.ndarray:
    """Views of a clip: `segments` over time (`preprocess.view_frames`) by three in space (`preprocess.thirds`).

    Returns:
        (C, segments * 3 * T, H, W) float32 in [0, 1], one view after the other.
    """
    channels, total, *size = box.shape
    frames = total // (3 * segments)

    def choose(count: int) -> list[int]:
        return [i for run in preprocess.view_frames(count, frames, segments) for i in run]

    found = _picked(path, box, choose, preprocess.thirds).numpy()  # (segments * T, 3, C, 1, H, W)
    split = found.reshape(segments, frames, 3, channels, *size)
    return split.transpose(3, 0, 2, 1, 4, 5).reshape(box.shape)


def read(
    path: Path, modality: Modality, box: Box, *, rate: int, seconds: float, part: Sequence[float] = ()
) -> np.ndarray:
    """A file of a modality at the box: float32 in [0, 1], shaped like the box; of a picture, a part.

    Raises: DataError, naming the file.
    """
    if modality == "audio":
        return audio(path, box, rate=rate, seconds=seconds)
    if modality == "depth":
        return depth(path, box)
    return video(path, box) if modality == "video" else image(path, box, part)
