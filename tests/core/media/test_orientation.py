"""Pictures and clips are shown upright: Exif's Orientation, and the display matrix of a film."""

import struct
from pathlib import Path

import numpy as np
import pytest
from films import write_film
from PIL import Image

from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.media import clips, stills

CLIP = Box(shape=(3, 4, 32, 32))


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
def test_pictures_are_upright_with_any_other_tags(tmp_path, turn, other) -> None:
    entries = [(0x0112, 3, 1, struct.pack("<H", turn)), *([other] if other else [])]
    stored = Image.fromarray(np.ascontiguousarray(STORED[turn](_corners())))
    stored.save(tmp_path / "a.png", exif=_exif(*entries))
    np.testing.assert_array_equal(np.asarray(stills.picture(tmp_path / "a.png", 3)), _corners())


def test_a_picture_without_a_readable_orientation_is_not_turned(tmp_path) -> None:
    for k, exif in enumerate((b"Exif\0\0nonsense", _exif((0x0112, 2, 2, b"6\0")), _exif((0x0112, 3, 1, b"\x63\0")))):
        Image.new("RGB", (20, 30)).save(tmp_path / f"{k}.jpg", exif=exif)
        assert stills.picture(tmp_path / f"{k}.jpg", 3).size == (20, 30)


def _set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Sets the display matrix of an MP4 track (ISO/IEC 14496-12, 8.3.2): (x, y) is shown at (a x + c y, b x + d y)."""
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
    write_film(tmp_path / "a.mp4", [STORED[stored](_corners())] * 12)
    _set_display_matrix(tmp_path / "a.mp4", *matrix)
    x = clips.video(tmp_path / "a.mp4", CLIP)[:, 0]
    corners = [
        x[:, rows, columns].mean((1, 2)).round()
        for rows in (slice(2, 14), slice(18, 30))
        for columns in (slice(2, 14), slice(18, 30))
    ]
    np.testing.assert_array_equal(corners, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_a_clip_rotated_by_an_odd_angle_is_refused(tmp_path) -> None:
    write_film(tmp_path / "a.mp4", [_corners()] * 12)
    _set_display_matrix(tmp_path / "a.mp4", 1, 1, -1, 1)
    with pytest.raises(DataError, match=r"a.mp4 is rotated by an angle that is not a multiple of 90 degrees"):
        clips.video(tmp_path / "a.mp4", CLIP)
