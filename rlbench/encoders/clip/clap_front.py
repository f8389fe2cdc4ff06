"""CLAP's ears in torch, differentiable: waves -> log-mel spectrograms in dB.

Wu et al., 2022, https://arxiv.org/abs/2211.06687; equal to transformers' ClapFeatureExtractor, which numpy computes,
where that draws nothing: a wave of the model's own length, or a shorter one, which is repeated.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import ClapFeatureExtractor

from rlbench.core.box import Box, Fill, Padding
from rlbench.core.errors import FieldError
from rlbench.encoders.clip.fronts import Front

_FLOOR = 1e-10  # power below it is silence


class ClapWaveform(Front):
    """Waves in [-1, 1] at the model's rate; one that is shorter than its length is repeated, then padded by zeros.

    Attributes:
        fused: whether the model takes four views of a long clip; all are the whole wave, as for short clips.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, ears: ClapFeatureExtractor, seconds: float | None, *, fused: bool) -> None:
        rate, length = ears.sampling_rate, int(ears.nb_max_samples)
        samples = length if seconds is None else round(seconds * rate)
        if not 0 < samples <= length:
            raise FieldError(f"seconds is {seconds}; this CLAP hears up to {length / rate:g}")
        fit = Fill(padding=cast(Padding, ears.padding))
        super().__init__(Box(shape=(1, samples), low=-1.0, high=1.0, unit="waveform", rate=rate, fit=fit))
        self.length, self.hop, self.fused, self.padding = length, ears.hop_length, fused, ears.padding
        bank = ears.mel_filters if ears.truncation == "fusion" else ears.mel_filters_slaney
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(ears.fft_window_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, samples) -> (B, 1 or 4, frames, mels) dB."""
        wave = x[:, 0]
        whole, rest = divmod(self.length, wave.shape[1])
        if self.padding != "pad":
            wave = wave.repeat(1, whole + (self.padding == "repeat" and rest > 0))
        wave = pad(wave, (0, max(self.length - wave.shape[1], 0)))[:, : self.length]
        window = self.window.to(wave)
        spectrum = torch.stft(wave, len(window), self.hop, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = power.transpose(1, 2) @ self.bank.to(wave)
        decibels = 10 * torch.log10(mel.clamp_min(_FLOOR))[:, None]
        return decibels.expand(-1, 4, -1, -1) if self.fused else decibels
