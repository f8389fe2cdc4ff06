"""Reads pictures and depth maps: files -> arrays in [0, 1] at an encoder's box; pictures in steps of 1/255."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from rlbench.core.box import Box, Fit
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import preprocess
from rlbench.core.media.contents import explain_content

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
LARGEST = 120_000_000  # the most pixels of a picture, which take 1.5 GB while it is decoded
MODES = {1: "L", 3: "RGB"}
_WIDE = ("I", "F")  # more than 8 bits: Pillow's conversion would clip them
_WIDE_RAW = re.compile(";16[BLN]")  # such as RGB;16B; BGR;16 has 16 bits for all three colours together
# Allowed formats, by content; without those that start another program (EPS) or have no signature.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "JPEG2000", "AVIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # of Exif's Orientation


def planes(picture: Image.Image) -> np.ndarray:
    """(C, H, W) uint8."""
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


@cache
def _formats() -> tuple[str, ...]:
    """The formats of _FORMATS that this Pillow supports."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _be_strict() -> Iterator[None]:
    """Silences Pillow's warnings, and refuses truncated files even if other code allows them."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@cache
def list_suffixes() -> frozenset[str]:
    """Lists the suffixes of the formats that are read, in lower case, such as ".webp"."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


def decode(path: Path | str, kind: str, content: bytes | None = None) -> Image.Image:
    """Decodes the first picture of a file, or of its content, upright, in its own mode, with all its bits.

    Args:
        path: the file.
        kind: what it is, for messages, such as "image".
        content: the bytes of a picture that is not a file of its own; `path` then only names it.

    Raises:
        DataError: the file is missing, damaged, too large, in a format that is not read, or has colours of 16 bits.
    """
    file = path if content is None else BytesIO(content)
    with guard(f"can't read the {kind} {path}"), _be_strict(), _open(file, kind) as found:
        if found.width * found.height > LARGEST:
            raise DataError(f"{path} has {found.width} x {found.height} pixels; a picture has at most {LARGEST:,}")
        if _has_wide_colours(found):
            raise DataError(f"{path} has colours of more than 8 bits; convert it to 8 bits")
        found.load()
        turn = _orientation(found)
        upright: Image.Image = found.transpose(_TURNS[turn]) if turn in _TURNS else found
        upright.format = found.format
        return upright


def _open(file: Path | str | BytesIO, kind: str) -> ImageFile.ImageFile:
    """Opens a picture. Raises: what Pillow raises; DataError for a file that is evidently something else."""
    try:
        return Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        reason = "" if isinstance(file, BytesIO) else explain_content(file)
        if reason:
            raise DataError(f"can't read the {kind} {file}: {reason}") from None
        raise


def _has_wide_colours(picture: ImageFile.ImageFile) -> bool:
    """Whether Pillow, which has no mode for them, would cut colours of 16 bits to 8."""
    if picture.mode.startswith(_WIDE):
        return False
    for tile in picture.tile:
        fields = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        wide = any(isinstance(one, str) and _WIDE_RAW.search(one) for one in fields)
        if wide or (picture.format == "PPM" and any(isinstance(one, int) and one > 255 for one in fields)):
            return True
    return False


def _orientation(picture: Image.Image) -> int:
    """Exif's Orientation; 1, upright, if there is none that can be read."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged tag says nothing about the pixels
        return 1
    return found if isinstance(found, int) else 1


def picture(path: Path | str, channels: int, content: bytes | None = None) -> Image.Image:
    """Reads a whole 8-bit picture, upright: RGB for three channels, grey for one; drops transparency.

    Args:
        path: the file.
        channels: 3 or 1.
        content: the bytes of a picture that is not a file of its own; `path` then only names it.

    Raises:
        DataError: the file is missing or damaged, or has more than 8 bits per pixel.
    """
    found = decode(path, "image", content)
    if found.mode.startswith(_WIDE):
        raise DataError(f"{path} has more than 8 bits a pixel ({found.mode}); convert it to 8 bits")
    with guard(f"can't read the image {path}"), _be_strict():
        return found.convert(MODES[channels])


def pixels(picture: Image.Image, box: Box) -> np.ndarray:
    """Fits a picture in memory to a box by `box.fit`; by default bicubic resize and centre crop.

    Returns:
        (C, H, W) float32 in [0, 1].
    """
    channels, rows, columns = box.shape
    picture = picture.convert(MODES[channels])
    if isinstance(box.fit, Fit):
        return planes(box.fit(picture, rows, columns)).astype(np.float32) / 255
    return planes(ImageOps.fit(picture, (columns, rows), Image.Resampling.BICUBIC)).astype(np.float32) / 255


def image(path: Path, box: Box, part: Sequence[float] = ()) -> np.ndarray:
    """Reads a picture at a box: RGB for three channels, grey for one; fitted by `pixels`.

    Args:
        path: the file.
        box: (C, H, W).
        part: (left, top, right, bottom) in pixels to cut out first; empty for the whole.

    Returns:
        (C, H, W) float32 in [0, 1].

    Raises:
        DataError: the file can't be read, or `part` lies outside of it.
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
    """Reads a 16-bit depth picture in millimetres at a box, by `preprocess.depth`.

    Returns:
        (C, H, W) float32 in [0, 1], all channels equal.

    Raises:
        DataError: the file can't be read or is not of 16 bits, or the box is not square.
    """
    found = decode(path, "depth picture")
    if not found.mode.startswith("I"):
        raise DataError(f"{path} is {found.mode}; a depth picture has 16 bits a pixel, in millimetres")
    with guard(f"can't read the depth picture {path}"):
        millimetres = np.asarray(found).astype(np.float32)
    channels, height, width = box.shape
    if height != width:
        raise DataError(f"depth is for square boxes; the encoder's box is {box.shape}")
    near = preprocess.depth(torch.from_numpy(millimetres), height)
    return near.expand(channels, -1, -1).numpy()
