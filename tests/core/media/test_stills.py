"""Pictures from files: values, modes, and files that can't be read or are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import stills
from rlbench.core.media.readers import read

RGB, GREY = Box(shape=(3, 32, 32)), Box(shape=(1, 32, 32))


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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes_of_8_bits_or_fewer_are_read(tmp_path, mode) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert stills.image(tmp_path / f"a.{suffix}", RGB).min() == 1


def test_a_truncated_picture_is_refused_even_if_other_code_allows_it(tmp_path, monkeypatch) -> None:
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-40])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"can't read the image .*a.jpg: .*[Tt]runcated"):
        stills.image(tmp_path / "a.jpg", RGB)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_picture_too_large_for_memory_and_a_postscript_program_are_refused(tmp_path) -> None:
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


@pytest.mark.parametrize("name", ["a.png", "alpha.png", "a.ppm"])
def test_colours_of_16_bits_are_refused_and_not_cut_to_8(tmp_path, name) -> None:
    """Pillow has no mode for them, and drops the lower bits without a word."""

    def chunk(label: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + label + data + struct.pack(">I", zlib.crc32(label + data))

    bands, colour = (4, 6) if name == "alpha.png" else (3, 2)
    row = struct.pack(f">{4 * bands}H", *[300] * 4 * bands)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress((b"\0" + row) * 4)) + chunk(b"IEND", b"")
    (tmp_path / name).write_bytes(b"P6 4 4 65535\n" + row * 4 if name == "a.ppm" else png)
    with pytest.raises(DataError, match=rf"{name} has colours of more than 8 bits; convert it to 8 bits"):
        stills.image(tmp_path / name, RGB)


def test_colours_of_16_bits_together_are_read(tmp_path) -> None:
    head = struct.pack("<2sIHHI", b"BM", 98, 0, 0, 66) + struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(head + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + b"\xff" * 32)
    assert stills.image(tmp_path / "a.bmp", RGB).min() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS.* git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG"),
        (b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
    ],
)
def test_a_file_that_is_evidently_something_else(tmp_path, content, message) -> None:
    (tmp_path / "a").write_bytes(content)
    clip = Box(shape=(3, 2, 32, 32))
    for modality, box in (("image", RGB), ("video", clip), ("audio", RGB)):
        with pytest.raises(DataError, match=rf"can't read the \w+ .*a: .*{message}"):
            read(tmp_path / "a", modality, box, rate=8000, seconds=1.0)
