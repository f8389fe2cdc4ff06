"""Pictures, recordings and clips from files: values, and files that can't be read."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import clips, sounds, stills

RGB, GREY = Box(shape=(3, 32, 32)), Box(shape=(1, 32, 32))
MEL, WAVE = Box(shape=(1, 64, 64), unit="log-mel"), Box(shape=(1, 8000), low=-1.0, high=1.0, unit="waveform")
CLIP = Box(shape=(3, 4, 16, 16))


@pytest.mark.parametrize("content", [b"", b"not a picture", "half"])
def test_an_unreadable_image_is_named(tmp_path, content) -> None:
    path = tmp_path / "broken.png"
    if content == "half":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"can't read the image .*broken.png"):
        stills.image(path, GREY)


def test_images_keep_their_aspect_and_their_8_bits(tmp_path) -> None:
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[None] * 3, (32, 64))
    Image.fromarray(columns).save(tmp_path / "a.png")
    x = stills.image(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(x[0], columns[:, 16:48] / np.float32(255))
    assert stills.image(tmp_path / "a.png", RGB).shape == (3, 32, 32)
    small = stills.image(tmp_path / "a.png", Box(shape=(1, 16, 16)))
    np.testing.assert_array_equal(small * 255, np.round(small * 255))


def test_resizing_averages_fine_detail(tmp_path) -> None:
    checks = np.indices((128, 128)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(stills.image(tmp_path / "a.png", GREY) - 0.5).max() < 0.02


def test_a_16_bit_image_is_refused_rather_than_clipped(tmp_path) -> None:
    Image.fromarray(np.full((32, 32), 30000, dtype=np.uint16)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"wide.png has more than 8 bits"):
        stills.image(tmp_path / "wide.png", GREY)


def test_colours_become_grey_by_their_luma(tmp_path) -> None:
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "red.png")
    assert stills.image(tmp_path / "red.png", GREY) == pytest.approx(0.299, abs=1 / 255)


def test_the_window_is_the_loudest_or_the_whole_in_silence() -> None:
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
    wave = sounds.audio(path, WAVE, rate=8000, seconds=1.0) * 2 - 1
    assert wave.shape == (1, 8000) and wave.max() == pytest.approx(0.5, abs=0.03)
    assert np.abs(np.fft.rfft(wave[0])).argmax() == pytest.approx(1000, abs=1)
    bands = 2595 * np.log10(1 + np.array([20, 1000, 4000]) / 700)
    expected = (bands[1] - bands[0]) / (bands[2] - bands[0]) * 65 - 1
    assert mel[0].mean(1).argmax() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("content", "said"), [(b"no sound", "can't read the recording"), (None, "has no samples")])
def test_an_unreadable_recording_is_named(tmp_path, content, said) -> None:
    path = tmp_path / "broken.wav"
    soundfile.write(path, np.zeros(0), 8000)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{said}.*broken.wav|broken.wav {said}"):
        sounds.audio(path, MEL, rate=8000, seconds=1.0)


def _clip(path: Path, values: list[int]) -> Path:
    """A clip whose frame t is grey of values[t], 48 wide and 32 high."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.bit_rate = 4_000_000
        for value in values:
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_clips_are_sampled_evenly_from_first_to_last_frame(tmp_path) -> None:
    values = [20 * t for t in range(10)]
    x = clips.video(_clip(tmp_path / "a.mp4", values), CLIP)
    assert x.shape == (3, 4, 16, 16) and x.dtype == np.float32
    assert x.mean((0, 2, 3)) * 255 == pytest.approx([values[t] for t in (0, 3, 6, 9)], abs=4)
    short = clips.video(_clip(tmp_path / "b.mp4", [50, 150]), CLIP)
    assert short.mean((0, 2, 3)) * 255 == pytest.approx([50, 50, 50, 150], abs=4)


def test_an_unreadable_clip_is_named(tmp_path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"can't read the clip .*broken.mp4"):
        clips.video(tmp_path / "broken.mp4", CLIP)
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"can't read the clip .*sound.wav"):
        clips.video(tmp_path / "sound.wav", CLIP)
