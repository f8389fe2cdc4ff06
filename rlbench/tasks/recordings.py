"""Tasks of sound files, which give corruptions the waveform before the front end (`inputs.Recorded`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlbench.core import Box, Split
from rlbench.core.errors import DataError
from rlbench.core.media import filterbank, preprocess
from rlbench.core.media.sounds import load_wave, render_waveform
from rlbench.tasks.batch import stack


class Recordings(ABC):
    """A task of files that can give its recordings as waveforms.

    Attributes:
        rate: samples a second for a box without its own rate.
        seconds: the length of sound for a log-mel box.
    """

    rate: int
    seconds: float

    @abstractmethod
    def paths(self, start: int, stop: int, split: Split) -> Sequence[Path]:
        """The files of examples start..stop-1."""

    def rate_of(self, box: Box) -> int:
        """Samples a second of `waves`."""
        return filterbank.RATE if box.unit == "fbank" else box.rate or self.rate

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        """Reads the waveforms of examples start..stop-1.

        Returns:
            (B, 1, samples) float64 in [0, 1]; silence is 1/2, and samples beyond full scale are clipped.

        Raises:
            DataError: a file can't be read, or recordings differ in length, as they may for a box of unit "fbank",
                which takes whole recordings.
        """
        waves = self.load_waves(box, start, stop, split)
        if len({wave.shape for wave in waves}) > 1:
            raise DataError(f"recordings {start} to {stop - 1} differ in length; ask for one at a time")
        stacked = torch.stack(waves).double() if waves else torch.empty(0, 1, 0).double()
        return ((stacked + 1) / 2).clamp(0, 1)

    def load_waves(self, box: Box, start: int, stop: int, split: Split) -> list[Tensor]:
        """Reads the waveforms of examples start..stop-1, each (1, samples) in [-1, 1]. Raises: DataError."""
        return [self._load_wave(path, box) for path in self.paths(start, stop, split)]

    def _load_wave(self, path: Path, box: Box) -> Tensor:
        samples, rate = load_wave(path, box, rate=self.rate, seconds=self.seconds)
        wave = torch.from_numpy(samples)[None]
        return preprocess.resample(wave, rate, filterbank.RATE) if box.unit == "fbank" else wave

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        """(B, 1, samples) in [0, 1] -> (B, *box.shape) float32 in the box, as `load` makes it of files."""
        rate = self.rate_of(box)
        return stack([render_waveform(wave, rate, box) for wave in (2 * waves[:, 0] - 1).float().numpy()], box)
