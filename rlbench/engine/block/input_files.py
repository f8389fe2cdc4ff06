"""The cache of corrupted inputs: one file per block, which several processes and hosts may write and remove.

A file has 8 bits per value where that is exact, otherwise float32, compressed, after a digest of the values.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rlbench.core import Box
from rlbench.core.files import LOG, TEMPORARY, is_stale, place

LIMIT = 2 << 30  # bytes of the folder; above it, files are removed
_DIGEST = 16
UNUSABLE: set[Path] = set()  # folders that this process failed to write to and does not try again


def is_usable(folder: Path) -> bool:
    """Whether this process has not failed to write to the folder."""
    return folder not in UNUSABLE


def _from_bytes(levels: np.ndarray, box: Box) -> Tensor:
    """(B, ...) uint8 -> float32 in the box, as 8-bit corruptions compute it."""
    unit = torch.from_numpy(levels).float() / 255
    return (box.low + (box.high - box.low) * unit).clamp(box.low, box.high)


def write_block(file: Path, x: Tensor, box: Box) -> None:
    """Caches a block if possible: an unwritable folder costs time, but fails no cell.

    Args:
        file: the block's file.
        x: (B, *box.shape) float32 in the box.
        box: the encoder's box.
    """
    if file.parent in UNUSABLE:
        return
    levels = ((x - box.low) / (box.high - box.low) * 255).round().byte().numpy()
    exact = torch.equal(_from_bytes(levels, box), x)
    data = (levels if exact else x.numpy()).tobytes()
    packed = hashlib.blake2b(data, digest_size=_DIGEST).digest() + pa.compress(data, codec="zstd", asbytes=True)
    try:
        place(file, packed, sync=False)
    except FileNotFoundError:
        return  # another process removed the folder, as it may at any time
    except OSError as error:
        if not file.is_file():  # on Windows, a file that is being read cannot be replaced
            UNUSABLE.add(file.parent)
            LOG.warning(
                "corrupted inputs are not cached for the next model: cannot write to %s: %s",
                file.parent,
                error.strerror or error,
            )
        return
    with suppress(OSError):
        _make_room(file.parent, file.name)


def read_block(file: Path, shape: tuple[int, ...], box: Box) -> Tensor | None:
    """Reads a cached block.

    Args:
        file: the block's file.
        shape: (B, *box.shape), the shape of the block.
        box: the encoder's box.

    Returns:
        (B, *box.shape) float32; None if the file is missing or damaged.
    """
    try:
        packed = file.read_bytes()
    except OSError:
        return None
    size = int(np.prod(shape))
    for width in (1, 4):
        try:
            data = pa.decompress(packed[_DIGEST:], decompressed_size=width * size, codec="zstd", asbytes=True)
        except (OSError, pa.ArrowException):
            continue
        if hashlib.blake2b(data, digest_size=_DIGEST).digest() == packed[:_DIGEST]:
            values = np.frombuffer(data, np.uint8 if width == 1 else np.float32).reshape(shape).copy()
            return _from_bytes(values, box) if width == 1 else torch.from_numpy(values)
    return None


def _make_room(folder: Path, newest: str) -> None:
    """Removes files, but not the newest, while the folder exceeds its limit; other processes may do so meanwhile.

    In the order of their names, which are hashes: the clocks of hosts that share it may disagree on the oldest.
    """
    found = []
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            if not entry.name.startswith(TEMPORARY):
                found.append((entry.path, entry.stat().st_size))
            elif is_stale(Path(entry)):
                os.unlink(entry)
    total = sum(size for _, size in found)
    for path, size in sorted(one for one in found if Path(one[0]).name != newest):
        if total <= LIMIT:
            break
        with suppress(OSError):
            os.unlink(path)
            total -= size
