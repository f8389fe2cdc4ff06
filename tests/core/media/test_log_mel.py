"""Log-mel spectrograms: the mel scale, the filter bank, and closed forms for tones, impulses and silence."""

import warnings

import numpy as np
import pytest

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media.log_mel import edges, filterbank, hertz_to_mel, logmel, mel_to_hertz

RATE = 8000
MEL = Box(shape=(1, 64, 64), unit="log-mel")
SECOND = np.arange(RATE) / RATE


def test_mel_scale_is_htk() -> None:
    # The HTK Book's scale puts 1000 Hz at 1000 mel to 4 digits; Kaldi writes it as 1127 ln(1 + f / 700).
    assert hertz_to_mel(1000.0) == pytest.approx(1000, abs=0.02)
    f = np.linspace(0, 8000, 99)
    np.testing.assert_allclose(hertz_to_mel(f), 1127 * np.log1p(f / 700), rtol=2e-5)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(f)), f, atol=1e-9)


@pytest.mark.parametrize(("mels", "rate", "points"), [(64, 8000, 1024), (128, 16000, 4096)])
def test_filterbank_is_a_partition_of_unity(mels: int, rate: int, points: int) -> None:
    """Neighbouring triangles overlap by half, so the weights of every bin between the outer peaks add up to 1."""
    bank, peaks = filterbank(mels, rate, points), edges(mels, rate)[1:-1]
    hertz = np.fft.rfftfreq(points, 1 / rate)
    inner = (hertz > peaks[0]) & (hertz < peaks[-1])
    np.testing.assert_allclose(bank.sum(0)[inner], 1, atol=1e-5)
    assert bank.min() >= 0 and (bank > 0).any(axis=1).all() and not bank[:, hertz < 20].any()


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("hertz", [150, 440, 1000, 2500, 3700])
def test_tone_peaks_in_the_band_that_contains_it(hertz: int, rate: int) -> None:
    wave = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    band = int(logmel(wave, rate, MEL)[0].mean(1).argmax())
    low, high = edges(64, rate)[[band, band + 2]]
    assert low <= hertz <= high


def test_impulse_lights_the_frame_at_its_time() -> None:
    for seconds in (0.0, 0.25, 0.5, 0.999):
        wave = np.zeros(RATE)
        wave[int(seconds * RATE)] = 1
        assert abs(int(logmel(wave, RATE, MEL)[0].sum(0).argmax()) - int(seconds * 64)) <= 1


def test_a_tone_20_db_weaker_is_a_third_of_the_range_lower() -> None:
    loud, weak = (
        np.sin(2 * np.pi * 500 * SECOND) + 10 ** (level / 20) * np.sin(2 * np.pi * 3000 * SECOND)
        for level in (-10, -30)
    )
    band = int(np.searchsorted(edges(64, RATE), 3000)) - 1
    gap = (logmel(loud, RATE, MEL) - logmel(weak, RATE, MEL))[0, band, 5:-5]
    np.testing.assert_allclose(gap, 20 / 60, atol=1.5 / 255)


def test_silence_is_zero_and_gain_does_not_matter() -> None:
    wave = np.random.default_rng(0).standard_normal(RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not logmel(np.zeros(RATE), RATE, MEL).any()
        assert not logmel(np.zeros(0), RATE, MEL).any()
        for gain in (1e-12, 0.5, 2.0**40):
            np.testing.assert_array_equal(logmel(gain * wave, RATE, MEL), logmel(wave, RATE, MEL))


@pytest.mark.parametrize("samples", [1, 100, 1200, 8000, 40_001])
@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 80, 7), (1, 112, 300)])
def test_any_clip_fills_any_box(samples: int, shape: tuple[int, int, int]) -> None:
    wave = np.random.default_rng(0).standard_normal(samples)
    x = logmel(wave, RATE, Box(shape=shape, unit="log-mel"))
    assert x.shape == shape and x.dtype == np.float32
    assert x.min() >= 0 and x.max() == 1
    assert samples < 1000 or (x[0].mean(0) > 0.3).all()  # white noise is in every frame, also the last


@pytest.mark.parametrize("wave", [np.zeros((2, 9)), np.array([0, np.nan]), np.array([np.inf, 0])])
def test_unusable_waves_are_refused(wave: np.ndarray) -> None:
    with pytest.raises(DataError, match="one channel of finite samples"):
        logmel(wave, RATE, MEL)
