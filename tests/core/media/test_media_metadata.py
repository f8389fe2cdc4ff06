"""What files say of themselves is followed or refused: turns, depth of samples, lengths, rates, sizes."""

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageFile

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import clips, preprocess, sounds, stills

RGB, CLIP = Box(shape=(3, 32, 32)), Box(shape=(3, 4, 32, 32))
WAVE, FBANK = Box(shape=(1, 4000), unit="waveform"), Box(shape=(1, 28, 70), low=-16.0, high=13.0, unit="fbank")
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)


def _corners() -> np.ndarray:
    """(32, 32, 3): red top left, green top right, blue bottom left, black."""
    rows = np.zeros((32, 32, 3), np.uint8)
    rows[:16, :16, 0] = rows[:16, 16:, 1] = rows[16:, :16, 2] = 255
    return rows


def _exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    at, data, body = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        short = len(value) <= 4
        body += struct.pack("<HHI", tag, kind, count)
        body += value.ljust(4, b"\0") if short else struct.pack("<I", at + len(data))
        data += b"" if short else value
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + data


# Exif 2.32, 4.6.4: where the 0th row and the 0th column of what is stored are shown.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("other", [None, (0x011A, 10, 1, struct.pack("<ii", -1, 0)), (0x0103, 2, 5, b"jpeg\0")])
def test_pictures_are_upright_whatever_other_tags_say(tmp_path, turn, other) -> None:
    entries = [(0x0112, 3, 1, struct.pack("<H", turn)), *([other] if other else [])]
    stored = Image.fromarray(np.ascontiguousarray(STORED[turn](_corners())))
    stored.save(tmp_path / "a.png", exif=_exif(*entries))
    np.testing.assert_array_equal(np.asarray(stills.picture(tmp_path / "a.png", 3)), _corners())


def test_a_picture_without_a_readable_orientation_is_as_it_is(tmp_path) -> None:
    for k, exif in enumerate((b"Exif\0\0nonsense", _exif((0x0112, 2, 2, b"6\0")), _exif((0x0112, 3, 1, b"\x63\0")))):
        Image.new("RGB", (20, 30)).save(tmp_path / f"{k}.jpg", exif=exif)
        assert stills.picture(tmp_path / f"{k}.jpg", 3).size == (20, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes_of_8_bits_or_fewer_are_read(tmp_path, mode) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert stills.image(tmp_path / f"a.{suffix}", RGB).min() == 1


def test_a_cut_picture_is_refused_where_other_code_allows_it(tmp_path, monkeypatch) -> None:
    Image.fromarray(_corners()).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-40])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"can't read the image .*a.jpg: .*[Tt]runcated"):
        stills.image(tmp_path / "a.jpg", RGB)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_picture_too_large_for_memory_and_a_program_in_its_place(tmp_path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for side in (12_000, 60_000):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with pytest.raises(DataError, match=r"a.png(: Image size| has 12000 x 12000 pixels; a picture has at most)"):
            stills.image(tmp_path / "a.png", RGB)
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(DataError, match=r"cannot identify image file '.*a.png'"):
        stills.image(tmp_path / "a.png", RGB)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 6])
def test_every_format_of_samples(tmp_path, subtype, channels) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([TONE] * channels, 1), 16_000, subtype=subtype)
    x = sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0)
    # the window may start anywhere in the tone, whose period is 400 / 11 samples
    assert 2 * x.max() - 1 == pytest.approx(0.5, abs=0.02) and x.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (TONE * 32_767, r"a.wav has samples up to 16383.5; they must be in \[-1, 1\]"),
        (np.where(np.arange(16_000) == 7, np.nan, TONE), "a.wav has no samples, or some that are not finite"),
        (np.where(np.arange(16_000) == 7, np.inf, TONE), "a.wav has no samples, or some that are not finite"),
    ],
)
def test_samples_in_other_units_or_none(tmp_path, samples, said) -> None:
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match=said):
        sounds.audio(tmp_path / "a.wav", WAVE, rate=16_000, seconds=1.0)


@pytest.mark.parametrize("kind", ["wav", "aiff", "ogg", "flac"])
def test_a_recording_that_is_cut(tmp_path, kind) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 80_000), 16_000)
    assert sounds.audio(path, WAVE, rate=16_000, seconds=1.0).shape == WAVE.shape
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"a.{kind} is cut|can't read the recording .*a.{kind}"):
        sounds.audio(path, WAVE, rate=16_000, seconds=1.0)


@pytest.mark.parametrize("rate", [0, 3, 2_000_000_011])
def test_a_rate_that_no_recording_has(tmp_path, rate) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a.wav"):
        sounds.audio(tmp_path / "a.wav", FBANK, rate=16_000, seconds=1.0)


def test_a_length_that_its_writer_did_not_know(tmp_path) -> None:
    """As programs write that end in a pipe."""
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
    """The same sums in another order; and a tone stays where it is."""
    wave = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    one, other = preprocess.resample(wave, old, new), preprocess._resample_in_parts(wave, old, new)
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


def _film(path: Path, codec: str = "mpeg4", shown: np.ndarray | None = None, **options: str) -> bytes:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 32, "yuv420p", 4_000_000
        for k in range(12):
            rows = np.random.default_rng(k).integers(0, 256, (32, 32, 3)).astype(np.uint8) if shown is None else shown
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rows), format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def _matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Sets the display matrix of an MP4 file's track: ISO/IEC 14496-12, 8.3.2, (x, y) at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("stored", "matrix"),
    [
        (1, (1, 0, 0, 1)),
        (2, (-1, 0, 0, 1)),
        (3, (-1, 0, 0, -1)),
        (4, (1, 0, 0, -1)),
        (5, (0, 1, 1, 0)),
        (6, (0, 1, -1, 0)),
        (7, (0, -1, -1, 0)),
        (8, (0, -1, 1, 0)),
    ],
)
def test_clips_are_upright(tmp_path, stored, matrix) -> None:
    _film(tmp_path / "a.mp4", shown=STORED[stored](_corners()))
    _matrix(tmp_path / "a.mp4", *matrix)
    x = clips.video(tmp_path / "a.mp4", CLIP)[:, 0]
    corners = [
        x[:, rows, columns].mean((1, 2)).round()
        for rows in (slice(2, 14), slice(18, 30))
        for columns in (slice(2, 14), slice(18, 30))
    ]
    np.testing.assert_array_equal(corners, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_a_clip_at_an_odd_angle_is_refused(tmp_path) -> None:
    _film(tmp_path / "a.mp4")
    _matrix(tmp_path / "a.mp4", 1, 1, -1, 1)
    with pytest.raises(DataError, match=r"a.mp4 is rotated by an angle that is not a multiple of 90 degrees"):
        clips.video(tmp_path / "a.mp4", CLIP)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.webm", "libvpx")])
def test_a_clip_that_is_cut(tmp_path, name, codec) -> None:
    content = _film(tmp_path / name, codec, **({"movflags": "faststart"} if name == "a.mp4" else {}))
    assert clips.video(tmp_path / name, CLIP).shape == CLIP.shape
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name}(: | is cut)"):
        clips.video(tmp_path / name, CLIP)


@pytest.mark.parametrize("side", range(9, 32, 2))
def test_a_white_clip_stays_in_its_box(tmp_path, side) -> None:
    """Weights of smoothing may add up to more than 1 in float32."""
    _film(tmp_path / "a.mp4", shown=np.full((32, 32, 3), 255, np.uint8))
    x = clips.video(tmp_path / "a.mp4", Box(shape=(3, 4, side, side)))
    assert x.min() > 0.98 and x.max() <= 1
