"""Prepares decoded media for a box as LanguageBind does: deterministic, in torch, differentiable.

Zhu et al., 2023, https://arxiv.org/abs/2310.01852. The original crops sounds and flips clips at random even in
evaluation; here nothing is random. Normalisation belongs to the encoder.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd, pi
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, interpolate, pad

from rlbench.core import Box
from rlbench.core.media import filterbank

DEPTH = (0.01, 10.0)  # metres: nearest and farthest
_STRIDE = 8  # a view takes every eighth frame
_TAPS = 1 << 24  # the most numbers of a filter bank in memory
_ZEROS, _ROLLOFF = 6, 0.99  # of the low-pass filter: zero crossings per side, and the cut-off relative to Nyquist


def _crop(x: Tensor, height: int, width: int) -> Tensor:
    """The centre crop of (..., H, W)."""
    top, left = round((x.shape[-2] - height) / 2), round((x.shape[-1] - width) / 2)
    return x[..., top : top + height, left : left + width]


def _resize(x: Tensor, side: int, mode: Literal["bicubic", "bilinear"], *, antialias: bool) -> Tensor:
    """(B, C, H, W) -> the short side becomes `side` pixels, the long side in proportion, rounded down."""
    height, width = x.shape[-2:]
    short = min(height, width)
    size = (int(side * height / short), int(side * width / short))
    return interpolate(x, size=size, mode=mode, align_corners=False, antialias=antialias)


def picture(x: Tensor, side: int = 224, *, antialias: bool = True) -> Tensor:
    """Prepares a picture or thermal image: bicubic resize of the short side, centre crop.

    Args:
        x: (C, H, W) in [0, 1].
        side: pixels of the box.
        antialias: the original resizes tensors, which newer releases of torchvision antialias and older ones do not.

    Returns:
        (C, side, side), clamped to [0, 1] since bicubic weights overshoot.
    """
    return _crop(_resize(x[None], side, "bicubic", antialias=antialias)[0], side, side).clamp(0, 1)


def depth(x: Tensor, side: int = 224, *, antialias: bool = True) -> Tensor:
    """(H, W) millimetres -> (1, side, side) in [0, 1], where 1 is 10 m or more."""
    near, far = DEPTH
    return picture((x.float() / 1000).clamp(near, far)[None] / far, side, antialias=antialias)


def clip(x: Tensor, side: int = 224, *, antialias: bool = False) -> Tensor:
    """(C, T, H, W) frames in [0, 1] -> (C, T, side, side): bilinear resize of the short side, centre crop.

    The original does not antialias clips.
    """
    frames = _resize(x.transpose(0, 1), side, "bilinear", antialias=antialias)
    return _crop(frames, side, side).transpose(0, 1)


def frame_numbers(count: int, frames: int = 8) -> list[int]:
    """The frames to take of a clip of `count`: evenly spaced from first to last, rounded down."""
    return [int(i) for i in np.linspace(0, count - 1, frames)]


def view_frames(count: int, frames: int = 8, segments: int = 5) -> list[list[int]]:
    """The frames of each view in time of a clip of `count`: evenly spaced runs of `frames` among every eighth frame.

    A short clip repeats its last frame. From LanguageBind's evaluation on Kinetics.
    """
    numbers = list(range(0, count, _STRIDE))
    numbers += numbers[-1:] * (frames - len(numbers))
    step = (len(numbers) - frames) / (segments - 1)
    return [numbers[int(k * step) :][:frames] for k in range(segments)]


def thirds(x: Tensor, side: int = 224, *, antialias: bool = False) -> Tensor:
    """(C, T, H, W) frames in [0, 1] -> (3, C, T, side, side): as `clip`, cropped at both ends and in the middle."""
    frames = _resize(x.transpose(0, 1), side, "bilinear", antialias=antialias).transpose(0, 1)
    height, width = frames.shape[-2:]
    starts = [int(k * (max(height, width) - side) / 2) for k in range(3)]
    long = 2 if height >= width else 3
    return torch.stack([frames.narrow(long, start, side) for start in starts])


def _filter_at(t: Tensor) -> Tensor:
    """The low-pass filter at time t in units of its zero crossings: a Hann-windowed sinc."""
    t = t.clamp(-_ZEROS, _ZEROS)
    return torch.sinc(t) * torch.cos(t * pi / _ZEROS / 2).square()


def _reach(old: int, new: int) -> tuple[float, int]:
    """The filter's cut-off, and its half width in samples."""
    edge = min(old, new) * _ROLLOFF
    return edge, ceil(_ZEROS * old / edge)


@lru_cache(maxsize=16)
def _lowpass(old: int, new: int) -> tuple[Tensor, int]:
    """(new, 1, taps) windowed sincs, one per phase, and their half width in samples."""
    edge, width = _reach(old, new)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    t = (taps - torch.arange(new, dtype=torch.float64)[:, None] / new) * edge
    return (_filter_at(t) * edge / old).float()[:, None], width


def resample(wave: Tensor, old: int, new: int) -> Tensor:
    """(B, samples) at `old` Hz -> (B, ceil(samples * new / old)) at `new` Hz, in bounded memory for any two rates.

    Hann-windowed sinc interpolation (Smith, 2002, https://ccrma.stanford.edu/~jos/resample/), equal to torchaudio's.
    """
    common = gcd(old, new)
    old, new = old // common, new // common
    if old == new:
        return wave
    if new * (old + 2 * _reach(old, new)[1]) > _TAPS:
        return resample_in_parts(wave, old, new)
    kernel, width = _lowpass(old, new)
    padded = pad(wave, (width, width + old))[:, None]
    phases = conv1d(padded, kernel.to(wave), stride=old)
    return phases.transpose(1, 2).flatten(1)[:, : ceil(new * wave.shape[-1] / old)]


@lru_cache(maxsize=4)
def _phases(old: int, new: int) -> Tensor:
    """(new, taps): for each phase, the taps of `_lowpass` that can be nonzero."""
    edge, width = _reach(old, new)
    k, reach = torch.arange(new)[:, None], torch.arange(-width, width + 2)
    t = ((k * old // new + reach) * new - k * old).double() / (old * new) * edge
    return (_filter_at(t) * edge / old).float()


def resample_in_parts(wave: Tensor, old: int, new: int) -> Tensor:
    """Resamples between rates with a small common divisor, whose whole filter bank would not fit in memory."""
    weights, width = _phases(old, new).to(wave), _reach(old, new)[1]
    padded, reach, parts = pad(wave, (width, width + 1)), torch.arange(weights.shape[1]), list[Tensor]()
    for k in torch.split(torch.arange(ceil(new * wave.shape[-1] / old)), _TAPS // 4 // len(reach) + 1):
        parts.append((padded[:, (k * old // new)[:, None] + reach] * weights[k % new]).sum(-1))
    return torch.cat(parts, 1)


def render_audio(wave: Tensor, rate: int, box: Box) -> Tensor:
    """(B, samples) in [-1, 1] at `rate` Hz -> (B, *box.shape) in a box of unit "fbank", of one or three pieces.

    A box of one piece takes the start of a longer clip.
    """
    pieces, mels, frames = box.shape
    wave = resample(wave, rate, filterbank.RATE)
    wave = wave - wave.double().mean(1, keepdim=True).to(wave.dtype)
    mel = filterbank.fit_frames(filterbank.fbank(wave, mels), frames)[:, :pieces]
    return mel.transpose(2, 3).clamp(box.low, box.high)
