"""Kaldi's filter bank in differentiable torch, the audio input of LanguageBind: 16 kHz waves -> log-mel frames.

The features of Gong et al., 2021, https://arxiv.org/abs/2104.01778, by the recipe of Kaldi (Povey et al., 2011,
https://publications.idiap.ch/publications/show/2265): whole frames of 25 ms every 10 ms, mean removed, pre-emphasis
0.97, a Hann window, a 512-point power spectrum, triangular bands of equal width in mel from 20 Hz to 8 kHz, the natural
logarithm. Equal to torchaudio.compliance.kaldi.fbank.
"""

from __future__ import annotations

from functools import cache
from math import ceil, log

import torch
from torch import Tensor
from torch.nn.functional import pad

RATE = 16_000  # Hz
LENGTH, SHIFT, POINTS = 400, 160, 512  # samples: frame length, hop, FFT length
PREEMPHASIS, LOWEST = 0.97, 20.0
EPS = torch.finfo(torch.float32).eps  # the floor of the power
# The range of a box. No wave in [-1, 1] leaves it: silence is at log(EPS) = -15.94, and the power of a band is at most
# 400 times its largest eigenvalue, e^12.6.
LOW, HIGH = -16.0, 13.0
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet, as LanguageBind normalises


@cache
def bank(mels: int) -> Tensor:
    """(mels, POINTS / 2 + 1) weights of the power spectrum, zero at the Nyquist frequency.

    Computed in float32 like torchaudio's: float64 would change the quietest bands noticeably.
    """
    low, high = (1127.0 * log(1.0 + hertz / 700.0) for hertz in (LOWEST, RATE / 2))
    step, band = (high - low) / (mels + 1), torch.arange(mels)[:, None]
    left, centre, right = low + band * step, low + (band + 1.0) * step, low + (band + 2.0) * step
    at = 1127.0 * (1.0 + RATE / POINTS * torch.arange(POINTS // 2) / 700.0).log()
    weights = torch.minimum((at - left) / (centre - left), (right - at) / (right - centre))
    return pad(weights.clamp_min(0.0), (0, 1))


def fbank(wave: Tensor, mels: int) -> Tensor:
    """(B, samples) at 16 kHz in [-1, 1] -> (B, frames, mels) nats in [LOW, HIGH].

    There are 1 + (samples - 400) // 160 frames. The gradient of a silent band is zero.
    """
    frames = wave.unfold(-1, LENGTH, SHIFT)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    window = torch.hann_window(LENGTH, periodic=False, dtype=wave.dtype, device=wave.device)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, POINTS)
    power = spectrum.real.square() + spectrum.imag.square()
    with torch.autocast(wave.device.type, enabled=False):  # bfloat16 has too few digits for a logarithm
        return torch.log((power @ bank(mels).to(power).T).clamp_min(EPS))


def fit_frames(mel: Tensor, frames: int) -> Tensor:
    """(B, N, mels) -> (B, 3, frames, mels): tiles a shorter clip, takes a piece from each third of a longer one.

    LanguageBind draws where a piece starts; here it is the first start of each third.
    """
    n = mel.shape[1]
    if n <= frames:
        return mel.repeat(1, ceil(frames / n), 1)[:, None, :frames].expand(-1, 3, -1, -1)
    thirds = torch.arange(n - frames + 1).tensor_split(3)
    starts = [int(third[0]) if len(third) else 0 for third in thirds]
    return torch.stack([mel[:, start : start + frames] for start in starts], 1)
