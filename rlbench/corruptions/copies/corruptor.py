"""A corruption with its severity and seed, applied to pictures, clips and sounds in their own types and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Corruption, registry
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media.samples import Limits, lies_outside, scale_back, scale_to_unit
from rlbench.core.seeds import ExampleStreams

CLIP, VALUES = 64, 1 << 27  # the most frames, and values, that a corruption of clips gets at a time


class Unfit(Exception):
    """A picture or sound can't be corrupted, and is copied; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Corruptor:
    """Corrupts what it can; the result depends on the seed, the stream's name and the moment, on nothing else.

    All pictures of a stream (a topic, a camera, a film) get one draw, as fog stays while a robot drives; a corruption
    whose `redraws` is true, such as noise, draws for every picture.

    Attributes:
        name: of the corruption.
        severity: 1..5.
        seed: of the random streams.
        only: patterns such as "/camera/*": topics, cameras or files of other names are copied. Empty: all.
        limits: the 16-bit counts that are black and white; without them, 16-bit pictures are copied.
        rate: samples a second of sound in bags; 0: sound in bags is copied.
        channels: of sound in bags.
        depths: collects the bits a channel of the pictures that were given.
    """

    name: str
    severity: int
    seed: int = 0
    only: tuple[str, ...] = ()
    limits: Limits | None = None
    rate: int = 0
    channels: int = 1
    depths: set[int] = field(default_factory=set, compare=False)

    def __post_init__(self) -> None:
        if self.severity not in range(1, 6):
            raise FieldError(f"severity is {self.severity}; it must be 1 to 5", "severity")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise FieldError(f"range is {list(self.limits)}; the smaller number comes first", "range")
        if self.limits is not None and not self.pictures:
            raise FieldError(f"range is for 16-bit pictures, and {self.name} acts on none; leave --range out", "range")
        if "audio" in self.corruption.modalities and not self.sounds:
            raise DataError(f"{self.name} acts on spectrograms, which no recording holds; choose one of waveforms")

    @cached_property
    def corruption(self) -> Corruption:
        """The corruption. Raises: UnknownName."""
        found: Corruption = registry.make("corruption", self.name)
        return found

    @property
    def pictures(self) -> bool:
        """Whether it corrupts single pictures."""
        return bool(self.corruption.modalities & {"image", "thermal"})

    @property
    def clips(self) -> bool:
        """Whether it corrupts clips only."""
        return self.corruption.modalities == {"video"}

    @property
    def sounds(self) -> bool:
        """Whether it corrupts sounds."""
        return "audio" in self.corruption.modalities and getattr(self.corruption, "acts_on", "") == "waveform"

    def chooses(self, name: str) -> bool:
        """Whether `only` lets a topic, camera or file through."""
        return not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)

    def _apply(self, corruption: Corruption, x: Tensor, stream: str, moment: object | None = None) -> Tensor:
        identity = stream if moment is None else f"{stream}@{moment}"
        try:
            return corruption(x, self.severity, ExampleStreams(self.seed, (identity,), f"{self.name} {self.severity}"))
        except DataError as error:  # such as: too small
            raise Unfit(str(error).partition(";")[0]) from None

    def change_picture(self, pixels: np.ndarray, stream: str, moment: object) -> np.ndarray:
        """Corrupts a picture.

        Args:
            pixels: (H, W, C) uint8 or uint16, C = 1 or 3.
            stream: the name of what the picture belongs to.
            moment: which picture of the stream it is.

        Returns:
            The same shape and type. 16-bit values are first clipped to `limits`.

        Raises:
            Unfit: it has 16 bits and there are no limits, or all are outside of them; has the wrong colours, or is too
                small.
        """
        self.depths.add(8 * pixels.itemsize)
        if pixels.dtype != np.uint8 and self.limits is None:
            raise Unfit("16 bits; give --range")
        if lies_outside(pixels, self.limits):
            raise Unfit("all counts outside of --range")
        if self.corruption.modalities == {"thermal"} and pixels.shape[2] > 1 and not self.only:
            raise Unfit("in colour, and the corruption is for thermal images; name them by --only")
        unit = torch.from_numpy(scale_to_unit(pixels, self.limits, stream)).permute(2, 0, 1)[None]
        redraws = bool(getattr(self.corruption, "redraws", False))
        out = self._apply(self.corruption, unit, stream, moment if redraws else None)
        return scale_back(out[0].permute(1, 2, 0).numpy(), pixels, self.limits)

    def change_clip(self, frames: Sequence[np.ndarray], stream: str, part: int) -> list[np.ndarray]:
        """Corrupts a part of a clip as a whole.

        Args:
            frames: (H, W, 3) uint8 each, at most CLIP.
            stream: the name of the film.
            part: which part it is.

        Returns:
            As many frames of the same shape and type.

        Raises:
            Unfit: the corruption refuses them.
        """
        clip = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float() / 255
        out = self._apply(self.corruption, clip, stream, part)[0].permute(1, 2, 3, 0)
        return list((out * 255).round().byte().numpy())

    def change_sound(self, wave: np.ndarray, rate: int, stream: str) -> np.ndarray:
        """Corrupts a sound.

        Args:
            wave: (samples, channels) in [-1, 1]; what is beyond is clipped.
            rate: samples a second.
            stream: its name.

        Returns:
            The same shape, float64 in steps of 16 bits.

        Raises:
            Unfit: the corruption refuses it.
        """
        if not len(wave):
            raise Unfit("no samples")
        try:
            corruption: Corruption = registry.make("corruption", self.name, {"rate": rate})
        except FieldError as error:
            raise Unfit(str(error)) from None
        unit = (torch.from_numpy(np.clip(wave, -1, 1).T.copy()).double() + 1) / 2
        return np.asarray(2 * self._apply(corruption, unit[None], stream)[0].T.numpy() - 1)
