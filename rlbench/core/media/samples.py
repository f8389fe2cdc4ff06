"""A picture's own samples and its format: decoded as stored, 8 or 16 bits, and written back the same way."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.stills import decode

# How each format is written: without loss, or as JPEG with little.
WRITTEN: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "PPM": {},
    "TIFF": {},
}
Limits = tuple[float, ...]  # two: the 16-bit counts that are black and white


class Samples(NamedTuple):
    """Pixels (H, W, 3) uint8 in RGB, or (H, W, 1) uint8 or uint16; and Pillow's name of the format."""

    pixels: np.ndarray
    format: str


def decode_samples(path: Path | str, content: bytes | None = None) -> Samples:
    """Decodes a picture, upright; drops transparency.

    Args:
        path: the file.
        content: the bytes of a picture that is not a file of its own; `path` then only names it.

    Raises:
        DataError: it can't be read, or has more than 16 bits or floating point values.
    """
    found = decode(path, "image", content)
    if found.mode.startswith("F"):
        raise DataError(f"{path} has floating point values; convert it to 8 or 16 bits")
    with guard(f"can't read the image {path}"):
        if found.mode.startswith("I"):
            wide = np.asarray(found)
            if wide.min() < 0 or wide.max() > 65535:
                raise DataError(f"{path} has values outside of 16 bits; convert it to 8 or 16 bits")
            return Samples(wide.astype(np.uint16)[..., None], found.format or "PNG")
        grey = found.mode in ("1", "L", "LA", "La")
        return Samples(np.atleast_3d(np.asarray(found.convert("L" if grey else "RGB"))), found.format or "PNG")


def encode_samples(samples: Samples) -> bytes:
    """Writes a picture in its format. Raises: DataError if the format is not in WRITTEN or can't hold the pixels."""
    if samples.format not in WRITTEN:
        raise DataError(f"{samples.format} pictures can't be written; allowed: {', '.join(WRITTEN)}")
    pixels, file = samples.pixels, BytesIO()
    with guard(f"can't write a {samples.format} picture"):
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        picture.save(file, samples.format, **WRITTEN[samples.format])
    return file.getvalue()


def scale_to_unit(pixels: np.ndarray, limits: Limits | None, name: str) -> np.ndarray:
    """Scales pixels to [0, 1]: 8 bits by 255, 16 bits from `limits`, clipped.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        limits: the counts that become 0 and 1; needed for 16 bits only.
        name: what the pixels are, for messages.

    Returns:
        The same shape, float32.

    Raises:
        DataError: the pixels have 16 bits and there are no limits.
    """
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    if limits is None:
        raise DataError(f"{name} has 16 bits; give range, the counts that are shown as black and as white")
    low, high = limits
    return np.asarray(np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1))


def lies_outside(pixels: np.ndarray, limits: Limits | None) -> bool:
    """Whether all counts of a 16-bit picture lie below or all above `limits`, so that it would be black or white."""
    if pixels.dtype == np.uint8 or limits is None or not pixels.size:
        return False
    return bool(pixels.max() <= limits[0] or pixels.min() >= limits[1])


def scale_back(unit: np.ndarray, pixels: np.ndarray, limits: Limits | None) -> np.ndarray:
    """Scales [0, 1] to the type of `pixels`, the inverse of `scale_to_unit`; rounds and stays in range."""
    low, high = (0.0, 255.0) if pixels.dtype == np.uint8 or limits is None else limits
    counts: np.ndarray = np.clip(np.round(low + (high - low) * unit), 0, np.iinfo(pixels.dtype).max)
    return counts.astype(pixels.dtype)
