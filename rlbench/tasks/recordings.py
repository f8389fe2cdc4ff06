"""Tasks of sound files: recordings before the front end, so that corruptions reach the sound (`inputs.Recorded`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Split
from rlbench.core.errors import DataError
from rlbench.core.media import filterbank, preprocess
from rlbench.core.media.sounds import load_wave, render_waveform


class Recordings(ABC):
    """What a task of files has to say for it: where its recordings are, their `rate` and their `seconds`."""

    rate: int
    seconds: float

    @abstractmethod
    def paths(self, start: int, stop: int, split: Split) -> Sequence[Path]:
        """The files of examples start..stop-1."""

    def rate_of(self, box: Box) -> int:
        """Samples a second of `waves`."""
        return filterbank.RATE if box.unit == "fbank" else box.rate or self.rate

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        """(B, 1, samples) float64 in [0, 1], silence at 1/2; what lies beyond full scale is cut off.

        Raises: DataError, naming the file that can't be read; where lengths differ, as they may for a box of unit
            "fbank", which takes whole recordings.
        """
        found = [self._wave(path, box) for path in self.paths(start, stop, split)]
        if len({wave.shape for wave in found}) > 1:
            raise DataError(f"recordings {start} to {stop - 1} differ in length; ask for one at a time")
        stacked = torch.stack(found).double() if found else torch.empty(0, 1, 0).double()
        return ((stacked + 1) / 2).clamp(0, 1)

    def _wave(self, path: Path, box: Box) -> Tensor:
        wave, rate = load_wave(path, box, rate=self.rate, seconds=self.seconds)
        one = torch.from_numpy(wave)[None]
        return preprocess.resample(one, rate, filterbank.RATE) if box.unit == "fbank" else one

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        """(B, 1, samples) in [0, 1] -> (B, *box.shape) in the box, float32: what `load` makes of such files."""
        rows = [render_waveform(wave, self.rate_of(box), box) for wave in (2 * waves[:, 0] - 1).float().numpy()]
        unit = torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *box.shape)
        return box.low + (box.high - box.low) * unit
