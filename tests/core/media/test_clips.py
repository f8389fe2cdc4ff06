"""Clips from files: which frames are read, values, and files that can't be read or are refused."""

import numpy as np
import pytest
import soundfile
from films import write_film

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import clips

CLIP, LARGE = Box(shape=(3, 4, 16, 16)), Box(shape=(3, 4, 32, 32))


def _greys(values: list[int], height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames of one grey value each."""
    return [np.full((height, width, 3), value, np.uint8) for value in values]


def test_clips_are_sampled_evenly_from_first_to_last_frame(tmp_path) -> None:
    values = [20 * t for t in range(10)]
    write_film(tmp_path / "a.mp4", _greys(values))
    x = clips.video(tmp_path / "a.mp4", CLIP)
    assert x.shape == (3, 4, 16, 16) and x.dtype == np.float32
    assert x.mean((0, 2, 3)) * 255 == pytest.approx([values[t] for t in (0, 3, 6, 9)], abs=4)
    write_film(tmp_path / "b.mp4", _greys([50, 150]))
    short = clips.video(tmp_path / "b.mp4", CLIP)
    assert short.mean((0, 2, 3)) * 255 == pytest.approx([50, 50, 50, 150], abs=4)


def test_an_unreadable_clip_is_named(tmp_path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"can't read the clip .*broken.mp4"):
        clips.video(tmp_path / "broken.mp4", CLIP)
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"can't read the clip .*sound.wav"):
        clips.video(tmp_path / "sound.wav", CLIP)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mkv", "mpeg4")]
)
def test_a_clip_that_is_cut(tmp_path, name, codec) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    content = write_film(tmp_path / name, noise, codec, **({"movflags": "faststart"} if name == "a.mp4" else {}))
    assert clips.video(tmp_path / name, LARGE).shape == LARGE.shape
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name}(: | is cut)"):
        clips.video(tmp_path / name, LARGE)


def test_a_film_with_sound_only_is_named(tmp_path) -> None:
    soundfile.write(tmp_path / "a.mp3", np.zeros(8000), 8000)
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp3").read_bytes())
    with pytest.raises(DataError, match=r"the clip .*a.mp4: it has no pictures, only sound"):
        clips.video(tmp_path / "a.mp4", CLIP)


@pytest.mark.parametrize("side", range(9, 32, 2))
def test_a_white_clip_stays_in_its_box(tmp_path, side) -> None:
    """The antialiasing weights may add up to more than 1 in float32."""
    write_film(tmp_path / "a.mp4", _greys([255] * 12, 32, 32))
    x = clips.video(tmp_path / "a.mp4", Box(shape=(3, 4, side, side)))
    assert x.min() > 0.98 and x.max() <= 1
