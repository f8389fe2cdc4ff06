"""Files of any modality -> arrays in [0, 1] at an encoder's box; pictures keep 8-bit values, in steps of 1/255."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlbench.core import Box, Modality
from rlbench.core.media.clips import video
from rlbench.core.media.sounds import audio
from rlbench.core.media.stills import depth, image

VERSIONS: dict[Modality, int] = {"video": 2}  # if not 1: raise it on any change of a value that is read


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
