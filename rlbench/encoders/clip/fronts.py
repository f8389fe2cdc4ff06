"""Fronts: differentiable maps from an attack's box to the normalised input of a visual tower.

Each front has a box, and maps (B, *box.shape) to the pixel values that the tower takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rlbench.core import Box, Modality
from rlbench.core.errors import FieldError
from rlbench.core.media import filterbank
from rlbench.encoders.clip.towers import VisionSizes

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
FRAMES = 8  # for a video tower that takes any number


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """Options of the boxes.

    Attributes:
        thermal: number of channels; one is the physical box and is repeated inside the encoder, three is what the
            literature uses.
        audio: log-mel frames in nats, or waveforms at 16 kHz.
        pieces: of log-mel audio; one is repeated inside the encoder, three are one from each third of a longer clip.
        seconds: length of waveforms, at least 0.025.
    """

    thermal: Literal[1, 3] = 1
    audio: Literal["log-mel", "waveform"] = "log-mel"
    pieces: Literal[1, 3] = 1
    seconds: float = 10.375  # as long as 1036 frames

    def __post_init__(self) -> None:
        if not 0.025 <= self.seconds < float("inf"):
            raise FieldError(f"seconds is {self.seconds}; a waveform must last 0.025 or more, the length of one frame")


class Front(nn.Module):
    """Base of the fronts; the shape of `box` is (C, H, W), for video (C, T, H, W), for waveforms (1, samples)."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.box = box


class Pixels(Front):
    """Intensities in [0, 1], normalised by a mean and a deviation (default: CLIP's); one channel becomes three."""

    mean: Tensor
    std: Tensor

    def __init__(self, box: Box, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__(box)
        shape = (3, *[1] * (len(box.shape) - 1))
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, [T,] H, W) in [0, 1] -> (B, 3, [T,] H, W)."""
        return (x - self.mean) / self.std  # broadcasting repeats a single channel


class Patches(Pixels):
    """As `Pixels`, then cut into patches, as SigLIP 2's towers for any shape of images take them."""

    def __init__(self, box: Box, mean: Sequence[float], std: Sequence[float], patch: int) -> None:
        super().__init__(box, mean, std)
        self.patch = patch

    def arguments(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> patches (B, N, 3 P P), their mask (B, N), and the grid (B, 2) of each image."""
        b, _, h, w = x.shape
        rows, columns = h // self.patch, w // self.patch
        cut = self(x).view(b, 3, rows, self.patch, columns, self.patch).permute(0, 2, 4, 3, 5, 1)
        return {
            "pixel_values": cut.reshape(b, rows * columns, -1),
            "pixel_attention_mask": torch.ones(b, rows * columns, dtype=torch.long, device=x.device),
            "spatial_shapes": torch.tensor([[rows, columns]], device=x.device).expand(b, 2),
        }


class LogMelFront(Front):
    """Log-mel frames in nats, normalised by AudioSet's mean and twice its deviation; one piece becomes three."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, mels, frames) -> (B, 3, mels, frames)."""
        return ((x - filterbank.MEAN) / (2 * filterbank.STD)).expand(-1, 3, -1, -1)


class WaveformFront(Front):
    """Waves in [-1, 1] at 16 kHz, without their mean, through Kaldi's filter bank; shorter clips are tiled."""

    def __init__(self, box: Box, mels: int, frames: int) -> None:
        super().__init__(box)
        self.mels, self.frames = mels, frames

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, samples) -> (B, 3, mels, frames)."""
        wave = x[:, 0]
        # In float64: the last bit of the mean changes the quietest bands, and must not depend on the number of threads.
        wave = wave - wave.double().mean(1, keepdim=True).to(wave.dtype)
        mel = filterbank.fit_frames(filterbank.fbank(wave, self.mels), self.frames)
        return (mel.transpose(2, 3) - filterbank.MEAN) / (2 * filterbank.STD)


def front_of(modality: Modality, sizes: VisionSizes, options: BoxOptions) -> Front:
    """The front of a modality's tower; its box has the size that the tower takes."""
    size = (sizes.height, sizes.width)
    if modality == "audio" and options.audio == "waveform":
        samples = round(options.seconds * filterbank.RATE)
        box = Box(shape=(1, samples), low=-1.0, high=1.0, unit="waveform", rate=filterbank.RATE)
        return WaveformFront(box, *size)
    if modality == "audio":
        return LogMelFront(Box(shape=(options.pieces, *size), low=filterbank.LOW, high=filterbank.HIGH, unit="fbank"))
    if modality == "video":
        return Pixels(Box(shape=(3, sizes.clip or FRAMES, *size)))
    channels = {"thermal": options.thermal, "depth": 1}.get(modality, 3)
    return Pixels(Box(shape=(channels, *size)))
