"""The base class of rlbench's own corruptions: a physical level per severity, one example at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Modality, Streams
from rlbench.core.errors import DataError, FieldError


@dataclass(frozen=True, kw_only=True)
class Levelled(ABC):
    """A corruption whose severity is one physical number.

    Attributes:
        modalities: the modalities that it applies to.
        acts_on: the unit of box that it applies to, such as "waveform"; "" for any.
        levels: the number at severity 1 to 5.
        unit: the unit of the levels, such as "dB".
        steps: the result is rounded to multiples of 1 / steps: 255 for 8 bits.
        dimensions: the numbers of dimensions that an example may have.
        redraws: whether it differs from frame to frame of one camera, as noise does.
    """

    modalities: ClassVar[frozenset[Modality]]
    acts_on: ClassVar[str] = ""
    levels: ClassVar[tuple[float, float, float, float, float]]
    unit: ClassVar[str]
    steps: ClassVar[int] = 255
    dimensions: ClassVar[tuple[int, ...]]
    redraws: ClassVar[bool] = False

    @property
    def version(self) -> str:
        """Part of every cell's key."""
        return f"1 {self.levels}"

    @abstractmethod
    def apply(self, x: np.ndarray, level: float, g: np.random.Generator) -> np.ndarray:
        """Corrupts one example, float64 in [0, 1] and read-only; the result has its shape and is clipped to [0, 1]."""

    def __call__(self, x: Tensor, severity: int, streams: Streams) -> Tensor:
        """Corrupts a batch.

        Args:
            x: (B, *shape) in [0, 1].
            severity: 1..5.
            streams: one per example.

        Returns:
            The same shape and dtype, in [0, 1], rounded to `steps`.

        Raises:
            FieldError: severity is not 1..5.
            DataError: x has the wrong number of dimensions or is not floating point.
        """
        name = type(self).__name__
        if severity not in range(1, 6):
            raise FieldError(f"{name}: severity is {severity!r}; it must be 1 to 5")
        if x.dim() - 1 not in self.dimensions or not x.dtype.is_floating_point:
            raise DataError(f"{name} needs a batch of {self.shapes()} floats; x is {tuple(x.shape)} {x.dtype}")
        examples = x.detach().cpu().double().numpy()
        examples.setflags(write=False)
        level = self.levels[severity - 1]
        rows = [self.apply(example, level, g) for example, g in zip(examples, streams.generators(), strict=True)]
        if not rows:
            return x.clone()
        out = np.round(np.clip(np.stack(rows), 0, 1) * self.steps) / self.steps
        return torch.from_numpy(out).to(x.device, x.dtype)

    def shapes(self) -> str:
        """The allowed shapes of an example, for messages."""
        words = {2: "(1, samples)", 3: "(C, H, W)", 4: "(C, T, H, W)"}
        return " or ".join(words[n] for n in self.dimensions)

    def level(self, severity: int) -> str:
        """The level at a severity as text, such as `20 dB`."""
        return f"{self.levels[severity - 1]:g} {self.unit}"
