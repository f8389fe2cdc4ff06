"""CLAP's feature extractor in torch, differentiable: waves -> log-mel spectrograms in dB.

Wu et al., 2022, https://arxiv.org/abs/2211.06687. It equals transformers' ClapFeatureExtractor, which uses numpy,
wherever that is not random: for waves of the model's own length, and for shorter ones, which are repeated.
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
    """Waves in [-1, 1] at the model's rate; waves shorter than the model's length are repeated, then padded with zeros.

    Attributes:
        fused: whether the model takes four views of a long clip; here all four are the whole wave, as for short clips.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, extractor: ClapFeatureExtractor, seconds: float | None, *, fused: bool) -> None:
        rate, length = extractor.sampling_rate, int(extractor.nb_max_samples)
        samples = length if seconds is None else round(seconds * rate)
        if not 0 < samples <= length:
            raise FieldError(f"seconds is {seconds}; this CLAP takes up to {length / rate:g}")
        fit = Fill(padding=cast(Padding, extractor.padding))
        super().__init__(Box(shape=(1, samples), low=-1.0, high=1.0, unit="waveform", rate=rate, fit=fit))
        self.length, self.hop, self.fused, self.padding = length, extractor.hop_length, fused, extractor.padding
        bank = extractor.mel_filters if extractor.truncation == "fusion" else extractor.mel_filters_slaney
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(extractor.fft_window_size), persistent=False)

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
