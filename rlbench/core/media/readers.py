"""Reads files of any modality: arrays in [0, 1] at an encoder's box; pictures keep their steps of 1/255."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlbench.core import Box, Modality
from rlbench.core.media.clips import video
from rlbench.core.media.sounds import audio
from rlbench.core.media.stills import depth, image

VERSIONS: dict[Modality, int] = {"video": 2}  # by modality, 1 by default: raise it when a reader's output changes


def read(
    path: Path, modality: Modality, box: Box, *, rate: int, seconds: float, part: Sequence[float] = ()
) -> np.ndarray:
    """Reads a file.

    Args:
        path: the file.
        modality: what it holds.
        box: of the encoder.
        rate: samples per second for a sound, unless the box has its own.
        seconds: of sound for a log-mel box.
        part: (left, top, right, bottom) of a picture in pixels; empty for the whole.

    Returns:
        float32 in [0, 1], shaped like the box.

    Raises:
        DataError: the file is missing, damaged, or unfit for the box; the message names it.
    """
    if modality == "audio":
        return audio(path, box, rate=rate, seconds=seconds)
    if modality == "depth":
        return depth(path, box)
    return video(path, box) if modality == "video" else image(path, box, part)
