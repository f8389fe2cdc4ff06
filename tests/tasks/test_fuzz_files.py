"""Damaged files and lists: an example, or one DataError that names the file; within 2 GB and 20 s; nothing else.

RLBENCH_FUZZ=<number> tries so many inputs a reader, drawn anew each time; by default few, the same each time.
"""

import csv
import io
import os
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from films import write_film
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rlbench.core import Box, registry
from rlbench.core.errors import DataError
from rlbench.core.media import clips, sounds, stills

TRIES = int(os.environ.get("RLBENCH_FUZZ") or 0)
fuzz = settings(
    max_examples=TRIES or 12,
    derandomize=not TRIES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
RGB, CLIP = Box(shape=(3, 16, 16)), Box(shape=(3, 4, 16, 16))
SOUND_BOXES = (
    Box(shape=(1, 32, 32), unit="log-mel"),
    Box(shape=(1, 28, 70), low=-16.0, high=13.0, unit="fbank"),
    Box(shape=(1, 4000), low=-1.0, high=1.0, unit="waveform"),
)


def _rows(kind: str) -> np.ndarray:
    return np.random.default_rng(len(kind)).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@cache
def _picture(kind: str) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    Image.fromarray(_rows(kind)).save(file, kind, exif=exif) if kind in ("jpeg", "png", "webp", "tiff") else (
        Image.fromarray(_rows(kind)).save(file, kind)
    )
    return file.getvalue()


@cache
def _sound(kind: str) -> bytes:
    file = io.BytesIO()
    wave = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    soundfile.write(file, wave, 8000, format=kind)
    return file.getvalue()


FILMS = {"mp4": ("mpeg4", "mp4"), "h264": ("libx264", "mp4"), "avi": ("mpeg4", "avi"), "webm": ("libvpx", "webm")}


@cache
def _film(kind: str) -> bytes:
    codec, form = FILMS[kind]
    options = {"movflags": "faststart"} if form == "mp4" else {}
    with TemporaryDirectory() as folder:
        return write_film(Path(folder) / f"film.{form}", [_rows(kind)] * 6, codec, **options)


@st.composite
def damage(draw, content: bytes) -> bytes:
    """Bytes flipped, cut off or out, doubled, inserted; most of it in the first bytes, where headers are."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([64, 512, 1 << 20])))))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["flip", "cut", "out", "double", "insert", "ones"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "out":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "ones":
            data[at : at + length] = b"\xff" * len(data[at : at + length])
    return bytes(data)


def _peak() -> int:
    """Bytes that the process had in memory at once since the last call, where the system says so."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _check(path: Path, read) -> None:
    """Either values of [0, 1], or one line with the file's name."""
    start, before = time.process_time(), _peak()
    try:
        x = read()
    except DataError as error:
        text = str(error)
        assert path.name in text and "\n" not in text and len(text) < 700, text
    else:
        assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    assert time.process_time() - start < 20 and _peak() < before + (2 << 30)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "ppm", "tiff", "gif"])
def test_a_damaged_picture(place, kind) -> None:
    @fuzz
    @given(damage(_picture(kind)))
    def attempt(content: bytes) -> None:
        path = place / f"picture.{kind}"
        path.write_bytes(content)
        _check(path, lambda: stills.image(path, RGB))

    attempt()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_damaged_recording(place, kind) -> None:
    @fuzz
    @given(damage(_sound(kind)), st.sampled_from(SOUND_BOXES))
    def attempt(content: bytes, box: Box) -> None:
        path = place / f"sound.{kind}"
        path.write_bytes(content)
        _check(path, lambda: sounds.audio(path, box, rate=8000, seconds=0.5))

    attempt()


@pytest.mark.parametrize("kind", list(FILMS))
def test_a_damaged_clip(place, kind) -> None:
    @fuzz
    @given(damage(_film(kind)))
    def attempt(content: bytes) -> None:
        path = place / f"clip.{kind}"
        path.write_bytes(content)
        _check(path, lambda: clips.video(path, CLIP))

    attempt()


LISTS = {
    "labels.csv": [
        ["path", "label", "split", "source"],
        *([f"{k}.png", "ab"[k % 2], "test", f"s{k}"] for k in range(4)),
    ],
    "classes.csv": [["label", "name"], ["a", "an apple, red"], ["b", 'a "big" bird']],
    "captions.csv": [
        ["path", "split", "source", "caption"],
        *([f"{k}.png", "test", "s", f"one, {k}"] for k in range(4)),
    ],
}


@st.composite
def dialects(draw, rows: list[list[str]]) -> bytes:
    """A list as some program may write it, damaged or not."""
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from(",;\t| ")),
        quotechar=draw(st.sampled_from("\"'")),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE])),
        escapechar="\\",
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])),
    )
    order = draw(st.permutations(range(len(rows[0]))))
    writer.writerows([[row[k] for k in order] for row in rows])
    content = text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])))
    return draw(damage(content)) if draw(st.booleans()) else content


@pytest.mark.parametrize("name", list(LISTS))
def test_a_list_in_any_dialect(place, name) -> None:
    """An accepted list has the values that were written, if nothing was damaged."""
    for k in range(4):
        (place / f"{k}.png").write_bytes(_picture("png"))

    @fuzz
    @given(dialects(LISTS[name]))
    def attempt(content: bytes) -> None:
        for other, rows in LISTS.items():
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            (place / other).write_text(text.getvalue())
        (place / "prompts.txt").write_text("a photo of {a}.\n")
        (place / name).write_bytes(content)
        if name == "captions.csv":
            (place / "labels.csv").write_bytes(content)
        kind = "captioned-folder" if name == "captions.csv" else "folder"
        try:
            task = registry.make("task", kind, {"data": str(place), "modality": "image"})
            assert task.size("test") == len(task.load(RGB, 0, 99).ids) and len(task.fingerprint()) == 16
        except DataError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 1000 and (str(place) in text or "classes are" in text), text

    attempt()
