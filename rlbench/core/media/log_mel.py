"""Log-mel spectrograms of a whole clip with any number of bands and frames.

Triangular filters of unit height on the HTK mel scale, mel = 2595 log10(1 + f / 700) (O'Shaughnessy, Speech
Communication, 1987; Young et al., The HTK Book, https://htk.eng.cam.ac.uk), from 20 Hz to half the rate: the scale and
lowest frequency of the Kaldi features that audio transformers use (Gong et al., 2021, https://arxiv.org/abs/2104.01778).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from rlbench.core import Box
from rlbench.core.errors import DataError

LOWEST = 20.0  # Hz
RANGE = 60.0  # dB below the clip's peak
WINDOW = 0.032  # seconds, at least; twice the hop if that is longer


def hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Hz -> mel on the HTK scale."""
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def mel_to_hertz(mel: np.ndarray | float) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    return np.asarray(700 * (10 ** (np.asarray(mel) / 2595) - 1))


def edges(mels: int, rate: int) -> np.ndarray:
    """(mels + 2,) Hz: band k rises from edge k, peaks at edge k + 1 and falls to edge k + 2."""
    low, high = hertz_to_mel(LOWEST), hertz_to_mel(rate / 2)
    return mel_to_hertz(np.linspace(low, high, mels + 2))


@cache
def filterbank(mels: int, rate: int, points: int) -> np.ndarray:
    """(mels, points // 2 + 1) weights in [0, 1] of the bins of a `points`-long FFT: triangles in mel, as in HTK."""
    band = hertz_to_mel(edges(mels, rate))[:, None]
    bin_ = hertz_to_mel(np.fft.rfftfreq(points, 1 / rate))[None]
    rising = (bin_ - band[:-2]) / (band[1:-1] - band[:-2])
    falling = (band[2:] - bin_) / (band[2:] - band[1:-1])
    weights: np.ndarray = np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)
    weights.setflags(write=False)
    return weights


def _points(window: int, mels: int, rate: int) -> int:
    """The FFT length, a power of two; zero padding gives the narrowest band at least two bins."""
    narrowest = edges(mels, rate)[1] - LOWEST
    return 1 << int(np.ceil(np.log2(max(window, 2 * rate / narrowest))))


def _frames(wave: np.ndarray, window: int, frames: int) -> np.ndarray:
    """(frames, window): frame t is centred at (t + 1/2) n / frames, so that they cover the whole clip."""
    centres = (np.arange(frames) + 0.5) * len(wave) / frames
    padded = np.pad(wave, (window // 2, window))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, window)[centres.astype(int)])


def logmel(wave: np.ndarray, rate: int, box: Box) -> np.ndarray:
    """The log-mel spectrogram of a clip of any length, low frequencies first.

    Args:
        wave: (n,) floats; the gain does not matter.
        rate: samples per second.
        box: of shape (1, mels, frames); the frames cover the clip evenly.

    Returns:
        (1, mels, frames) float32 in [0, 1], in steps of 1/255: 1 is the clip's peak, 0 is 60 dB or more below it.
        Silence is 0 everywhere.

    Raises:
        DataError: the wave is not one channel of finite samples.
    """
    from scipy.fft import rfft  # scipy takes a second to load
    from scipy.signal import get_window

    wave = np.asarray(wave, dtype=np.float64)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise DataError(f"a wave of shape {wave.shape}; it must be one channel of finite samples")
    _, mels, frames = box.shape
    peak = np.abs(wave).max(initial=0)
    if peak == 0:
        return np.zeros((1, mels, frames), dtype=np.float32)
    window = int(max(WINDOW * rate, np.ceil(2 * len(wave) / frames)))
    points = _points(window, mels, rate)
    taper = get_window("hann", window)
    # Normalise the peak first, so that the result does not depend on the gain and float32 does not underflow.
    pieces = (_frames(wave / peak, window, frames) * taper).astype(np.float32)
    power = np.abs(rfft(pieces, points)) ** 2 @ filterbank(mels, rate, points).T
    loudness = 10 * np.log10(np.maximum(power / power.max(), 10 ** (-RANGE / 10)))
    levels = np.round((1 + loudness.T[None] / RANGE) * 255)
    return np.asarray(levels / 255, dtype=np.float32)
