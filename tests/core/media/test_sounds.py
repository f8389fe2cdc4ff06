"""Recordings from files: windows, rates, formats, and files that can't be read or are refused."""

import struct

import numpy as np
import pytest
import soundfile
import torch

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import preprocess, sounds

MEL, SECOND = Box(shape=(1, 64, 64), unit="log-mel"), Box(shape=(1, 8000), low=-1.0, high=1.0, unit="waveform")
WAVE, FBANK = Box(shape=(1, 4000), unit="waveform"), Box(shape=(1, 28, 70), low=-16.0, high=13.0, unit="fbank")
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)


def test_the_window_is_the_loudest_part_or_is_padded_with_silence() -> None:
    wave = np.concatenate([np.full(10, 0.1), np.full(5, -0.9), np.full(10, 0.2)])
    np.testing.assert_array_equal(sounds.window(wave, 5), np.full(5, -0.9))
    np.testing.assert_array_equal(sounds.window(np.ones(3), 6), [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(sounds.window(wave, 25), wave)


@pytest.mark.parametrize("suffix", ["wav", "ogg", "flac"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_is_at_its_pitch_in_any_format_and_rate(tmp_path, suffix, rate) -> None:
    path = tmp_path / f"tone.{suffix}"
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    soundfile.write(path, np.stack([tone, tone], axis=1), rate)
    mel = sounds.audio(path, MEL, rate=8000, seconds=1.0)
    assert mel.shape == (1, 64, 64) and mel.dtype == np.float32 and 0 <= mel.min() <= mel.max() == 1
    wave = sounds.audio(path, SECOND, rate=8000, seconds=1.0) * 2 - 1
    assert wave.shape == (1, 8000) and wave.max() == pytest.approx(0.5, abs=0.03)
    assert np.abs(np.fft.rfft(wave[0])).argmax() == pytest.approx(1000, abs=1)
    bands = 2595 * np.log10(1 + np.array([20, 1000, 4000]) / 700)
    expected = (bands[1] - bands[0]) / (bands[2] - bands[0]) * 65 - 1
    assert mel[0].mean(1).argmax() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("content", "message"), [(b"no sound", "can't read the recording"), (None, "has no samples")])
def test_an_unreadable_recording_is_named(tmp_path, content, message) -> None:
    path = tmp_path / "broken.wav"
    soundfile.write(path, np.zeros(0), 8000)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{message}.*broken.wav|broken.wav {message}"):
        sounds.audio(path, MEL, rate=8000, seconds=1.0)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 6])
def test_every_format_of_samples(tmp_path, subtype, channels) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([TONE] * channels, 1), 16_000, subtype=subtype)
    x = sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0)
    # the window may start anywhere in the tone, whose period is 400 / 11 samples
    assert 2 * x.max() - 1 == pytest.approx(0.5, abs=0.02) and x.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (TONE * 32_767, r"a.wav has samples up to 16383.5; they must be in \[-1, 1\]"),
        (np.where(np.arange(16_000) == 7, np.nan, TONE), "a.wav has no samples, or some that are not finite"),
        (np.where(np.arange(16_000) == 7, np.inf, TONE), "a.wav has no samples, or some that are not finite"),
    ],
)
def test_samples_in_other_units_and_empty_files_are_refused(tmp_path, samples, message) -> None:
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match=message):
        sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0)


@pytest.mark.parametrize("kind", ["wav", "aiff", "ogg", "flac", "mp3", "RF64"])
def test_a_recording_that_is_cut(tmp_path, kind) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 80_000), 16_000, format=kind.upper())
    assert sounds.audio(path, WAVE, rate=16_000, seconds=1.0).shape == WAVE.shape
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"a.{kind} is cut|can't read the recording .*a.{kind}"):
        sounds.audio(path, WAVE, rate=16_000, seconds=1.0)


@pytest.mark.parametrize("rate", [0, 3, 2_000_000_011])
def test_an_impossible_rate_is_refused(tmp_path, rate) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a.wav"):
        sounds.audio(tmp_path / "a.wav", FBANK, rate=16_000, seconds=1.0)


def test_an_unknown_length_in_the_header_is_accepted(tmp_path) -> None:
    """As programs write a file to a pipe."""
    soundfile.write(tmp_path / "a.wav", TONE, 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(content)
    assert sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0).shape == WAVE.shape


def test_a_recording_too_long_for_memory(tmp_path, monkeypatch) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16_000)
    monkeypatch.setattr(sounds, "LARGEST", 15_999)
    with pytest.raises(DataError, match=r"a.wav is longer than .* minutes, the most at its rate"):
        sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0)


@pytest.mark.parametrize(("old", "new"), [(441, 160), (3, 2), (1, 2), (1999, 2000)])
def test_rates_without_a_common_divisor_are_resampled_like_others(old, new) -> None:
    """The sums are equal in another order, and a tone keeps its pitch."""
    wave = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    one, other = preprocess.resample(wave, old, new), preprocess.resample_in_parts(wave, old, new)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [16_001, 44_101, 99_991])
def test_an_odd_rate_keeps_a_tone(tmp_path, rate) -> None:
    t = np.arange(rate) / rate
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * t), rate)
    x = preprocess.resample(torch.from_numpy(np.sin(2 * np.pi * 1000 * t).astype(np.float32))[None], rate, 16_000)
    inner = x[0, 100:15_900].double().numpy()
    np.testing.assert_allclose(inner, np.sin(2 * np.pi * 1000 * np.arange(100, 15_900) / 16_000), atol=3e-3)
    for box in (FBANK, WAVE):
        assert sounds.audio(tmp_path / "a.wav", box, rate=16_000, seconds=1.0).shape == box.shape
