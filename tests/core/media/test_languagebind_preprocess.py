"""Preprocessing against the outputs of LanguageBind's original processors, and its gradients."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from films import write_film
from safetensors.torch import load_file
from torch import Tensor

from rlbench.core.errors import DataError, FieldError
from rlbench.core.media import clips, filterbank, preprocess, sounds
from rlbench.encoders.clip.fronts import MEAN, STD, BoxOptions, front_of
from rlbench.encoders.clip.towers import VisionSizes
from rlbench.tasks.audio_world import AudioWorld

AUDIO = VisionSizes(height=112, width=1036)


def wave(seconds: float) -> Tensor:
    t = np.arange(int(seconds * 16000)) / 16000
    x = 0.5 * np.sin(2 * np.pi * (200 * t + 300 * t**2)) + 0.1 * np.sin(2 * np.pi * 50 * t) + 0.05
    return torch.from_numpy(x.astype(np.float32))[None]


def centred(x: Tensor) -> Tensor:
    """The wave less its mean as numpy computes it: the original's last bit depended on the number of threads."""
    return x - x.numpy().mean()


def assert_same_bands(mel: Tensor, expected: Tensor) -> None:
    """The amplitudes of log-mel bands are equal up to float32 rounding.

    Processors round the logarithm and the Fourier transform differently. The first moves the bands' edges, by 1e-5 of a
    band; the second adds noise of a few eps of the loudest amplitude, which the logarithm of a quiet band magnifies.
    """
    amplitude, reference = (0.5 * mel).exp(), (0.5 * expected).exp()
    noise = 8 * torch.finfo(torch.float32).eps * float(reference.max())
    torch.testing.assert_close(amplitude, reference, rtol=3e-5, atol=noise)


def to_bands(pixels: Tensor) -> Tensor:
    return pixels * (2 * filterbank.STD) + filterbank.MEAN


def intensity(normalised: Tensor) -> Tensor:
    shape = (3, *[1] * (normalised.dim() - 1))
    return normalised * torch.tensor(STD).view(shape) + torch.tensor(MEAN).view(shape)


@pytest.fixture
def expected(originals) -> dict[str, Tensor]:
    return load_file(originals / "preproc" / "expected.safetensors")


def test_the_filter_bank(expected) -> None:
    mel = filterbank.fbank(centred(wave(3)), 112)
    assert mel.shape == (1, 298, 112)
    assert_same_bands(mel[0, ::20, ::4], expected["audio_mel_3s"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(filterbank.fbank(centred(wave(3)), 112), mel)


@pytest.mark.parametrize(("seconds", "name"), [(3, "3s"), (5, "5s"), (12, "12s_firststarts")])
def test_sounds_are_tiled_or_cut_in_thirds(expected, originals, seconds, name) -> None:
    mel = filterbank.fbank(centred(wave(seconds)), 112)
    x = (filterbank.fit_frames(mel, 1036).transpose(2, 3) - filterbank.MEAN) / (2 * filterbank.STD)
    assert_same_bands(to_bands(x[0, :, ::8, ::37]), to_bands(expected[f"audio_pixel_{name}"]))
    frames = json.loads((originals / "preproc" / "meta.json").read_text())["audio_frames"]
    for length, count in frames.items():
        assert filterbank.fbank(wave(float(length)), 8).shape[1] == count


def test_the_fronts_give_what_the_processor_gives(expected) -> None:
    heard = front_of("audio", AUDIO, BoxOptions(audio="waveform", seconds=3))
    assert heard.box.shape == (1, 48000) and (heard.box.low, heard.box.high) == (-1, 1)
    x = heard(wave(3)[None])
    assert_same_bands(to_bands(x[0, :, ::8, ::37]), to_bands(expected["audio_pixel_3s"]))
    seen = front_of("audio", AUDIO, BoxOptions())
    mel = filterbank.fit_frames(filterbank.fbank(centred(wave(3)), 112), 1036)[:, :1].transpose(2, 3)
    assert seen.box.shape == mel.shape[1:] and seen.box.low < mel.min() and mel.max() < seen.box.high
    torch.testing.assert_close(seen(mel), x, atol=1e-5, rtol=0)
    assert front_of("audio", AUDIO, BoxOptions(pieces=3)).box.shape == (3, 112, 1036)
    with pytest.raises(FieldError, match=r"seconds is 0\.01; a waveform must last 0\.025 or more"):
        BoxOptions(seconds=0.01)


def test_recordings_and_the_audio_world_are_heard_the_same_way(tmp_path) -> None:
    box = front_of("audio", AUDIO, BoxOptions()).box
    t = np.arange(44100) / 44100
    both = np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0.1 * np.cos(9000 * t)], 1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", both, 44100, subtype="FLOAT")
    unit = sounds.audio(tmp_path / "a.wav", box, rate=8000, seconds=1.0)
    mel = preprocess.render_audio(torch.from_numpy(both[None, :, 0]), 44100, box)
    assert mel.shape == (1, 1, 112, 1036) and unit.min() >= 0 and unit.max() <= 1
    torch.testing.assert_close(box.low + (box.high - box.low) * torch.from_numpy(unit), mel[0], atol=1e-5, rtol=0)
    bands = 1127 * np.log1p(np.array([20, 440, 8000]) / 700)
    assert mel[0, 0].mean(1).argmax() == pytest.approx((bands[1] - bands[0]) / (bands[2] - bands[0]) * 113 - 1, abs=1)
    world = AudioWorld()
    x = world.load(box, 0, 2).x
    assert torch.equal(world.hear(world.waves(box, 0, 2), box), x)
    torch.testing.assert_close(x[..., :98], x[..., 98:196])  # a second is 98 frames, and tiled
    heard = front_of("audio", AUDIO, BoxOptions(audio="waveform", seconds=2)).box
    samples = sounds.audio(tmp_path / "a.wav", heard, rate=8000, seconds=1.0)[0] * 2 - 1
    assert np.abs(np.fft.rfft(samples)).argmax() == 2 * 440 and (samples[:8000] == 0).all()
    waves = world.load(heard, 0, 1).x[0, 0]
    assert world.rate_of(heard) == 16000 and waves.shape == (32000,) and waves[:8000].abs().max() < 1e-4
    narrow = replace(heard, shape=(1, 16000))
    torch.testing.assert_close(world.load(narrow, 0, 1).x[0, 0], waves[8000:24000], atol=1e-4, rtol=0)
    soundfile.write(tmp_path / "a.wav", both[:1000], 44100)
    with pytest.raises(DataError, match="shorter than 25 ms"):
        sounds.audio(tmp_path / "a.wav", box, rate=8000, seconds=1.0)


@pytest.mark.parametrize("antialias", [True, False])
def test_pictures(expected, antialias) -> None:
    """Pixels are equal where the original's are in [0, 1], and clamped elsewhere."""
    y, x = np.mgrid[:300, :400].astype(np.int64)
    rgb = np.stack([(3 * x + 5 * y) % 256, (x * y // 7) % 256, (x * x // 50 + y) % 256]).astype(np.uint8)
    found = preprocess.picture(torch.from_numpy(rgb).float() / 255, antialias=antialias)
    assert found.shape == (3, 224, 224) and found.min() >= 0 and found.max() <= 1
    original = intensity(expected[f"image_antialias_{str(antialias).lower()}"])
    assert original.min() < 0 and original.max() > 1
    torch.testing.assert_close(found[:, ::16, ::16], original.clamp(0, 1), atol=1e-5, rtol=0)
    front = front_of("image", VisionSizes(), BoxOptions())
    torch.testing.assert_close(intensity(front(found[None])[0]), found, atol=1e-6, rtol=0)


def test_depth(expected) -> None:
    y, x = np.mgrid[:300, :400]
    found = preprocess.depth(torch.from_numpy(200 + 37 * x + 11 * y))
    front = front_of("depth", VisionSizes(), BoxOptions())
    assert found.shape == front.box.shape == (1, 224, 224) and found.max() == 1
    original = intensity(expected["depth_maxdepth10"])
    assert original.max() - 1 < 1e-4
    torch.testing.assert_close(intensity(front(found[None])[0])[:, ::16, ::16], original.clamp(0, 1), atol=1e-5, rtol=0)


def test_clips(expected, originals, tmp_path) -> None:
    t, y, x = np.mgrid[:20, :120, :160].astype(np.int64)
    rgb = np.stack([(3 * x + 5 * y + 7 * t) % 256, (x * y // 7 + 11 * t) % 256, (x * x // 50 + y + 3 * t) % 256])
    meta = json.loads((originals / "preproc" / "meta.json").read_text())
    assert preprocess.frame_numbers(300) == meta["video_idx_300_to_8"]
    frames = preprocess.frame_numbers(20)
    assert frames == meta["video_idx_20_to_8"]
    found = preprocess.clip(torch.from_numpy(rgb[:, frames].astype(np.uint8)).float() / 255)
    x = front_of("video", VisionSizes(frames=8), BoxOptions())(found[None])[0]
    torch.testing.assert_close(x[:, :, ::32, ::32], expected["video_noflip"], atol=1e-5, rtol=0)
    write_film(tmp_path / "lossless.mkv", rgb.astype(np.uint8).transpose(1, 2, 3, 0), "ffv1", pix_fmt="bgr0")
    read = clips.video(tmp_path / "lossless.mkv", front_of("video", VisionSizes(frames=8), BoxOptions()).box)
    torch.testing.assert_close(torch.from_numpy(read), found, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rate", "sweep", "tone"), [(44100, 3000, 0.2), (8000, 1000, 0.0)])
def test_resampling(expected, rate, sweep, tone) -> None:
    t = np.arange(rate // 2) / rate
    x = 0.5 * np.sin(2 * np.pi * (200 * t + sweep * t**2)) + tone * np.sin(2 * np.pi * 9000 * t)
    found = preprocess.resample(torch.from_numpy(x.astype(np.float32))[None], rate, 16000)
    assert found.shape == (1, 8000)
    torch.testing.assert_close(found[:, ::20], expected[f"resample_{rate}_16000"], atol=1e-5, rtol=0)
    assert preprocess.resample(found, 16000, 16000) is found


def test_no_wave_leaves_the_box_of_log_mel() -> None:
    """The power of a band is at most 400 times its largest eigenvalue, for any wave in [-1, 1]."""
    unit = torch.eye(400, dtype=torch.float64)
    unit = unit - unit.mean(1, keepdim=True)
    unit = unit - 0.97 * torch.cat([unit[:, :1], unit[:, :-1]], 1)
    spectrum = torch.fft.rfft(unit * torch.hann_window(400, periodic=False, dtype=torch.float64), 512)
    for mels in (112, 126):
        most = 0.0
        for band in filterbank.bank(mels).double():
            part = (spectrum * band.sqrt())[:, band > 0]
            rows = torch.cat([part.real, part.imag], 1)
            most = max(most, 400 * float(torch.linalg.matrix_norm(rows, 2)) ** 2)
        assert filterbank.HIGH - 1 < math.log(most) < filterbank.HIGH
    assert filterbank.fbank(torch.zeros(1, 800), 112).min() > filterbank.LOW


def test_gradients_of_the_fronts() -> None:
    """Against finite differences in float64; in silence the gradient is 0."""
    g = torch.Generator().manual_seed(0)
    x = (0.1 * torch.randn(1, 720, generator=g, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: filterbank.fit_frames(filterbank.fbank(v, 8), 5), (x,))
    assert torch.autograd.gradcheck(lambda v: preprocess.resample(v, 3, 2), (x[:, :40],))
    picture = (0.2 + 0.6 * torch.rand(1, 6, 9, generator=g, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: preprocess.picture(v, 4), (picture,))
    clip = torch.rand(1, 2, 6, 9, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: preprocess.clip(v, 4), (clip,))
    quiet = torch.cat([torch.zeros(1, 800), 1e-4 * torch.randn(1, 800, generator=g)], 1).requires_grad_()
    (gradient,) = torch.autograd.grad(filterbank.fbank(quiet, 112).sum(), quiet)
    assert gradient.isfinite().all() and (gradient[:, :480] == 0).all() and gradient.abs().max() > 1
