"""`rlbench corrupt` on folders, films, sounds and LeRobot data sets: what changes, what stays, and that copies play."""

import errno
import json
import os
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from commands import fails
from films import write_film
from lerobot_sets import FRONT, WRIST, draw_frame, write_set
from PIL import Image

from rlbench.core import Box, registry
from rlbench.core.files import name_temporary
from rlbench.corruptions import corrupt

FOG = ("--corruption", "fog", "--severity", 3)
NOISE = ("--corruption", "gaussian_noise", "--severity", 3)
HISS = ("--corruption", "white_noise", "--severity", 5)
RAMP = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8) * 2


def _read_film(path):
    """Times in seconds and frames (T, H, W, 3) of a film."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
    return [float(one.pts * one.time_base) for one in frames], np.stack(
        [one.to_ndarray(format="rgb24") for one in frames]
    )


def _tree(folder):
    """Every file's bytes by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures, a 16-bit picture, a sound and a list."""
    root = tmp_path / "in"
    (root / "a").mkdir(parents=True)
    Image.fromarray(np.dstack([RAMP, RAMP // 2, 255 - RAMP])).save(root / "a" / "x.png")
    Image.fromarray(RAMP).save(root / "a" / "y.jpg")
    Image.fromarray(RAMP.astype(np.uint16) * 100 + 20_000).save(root / "deep.png")
    Image.fromarray(RAMP[:20, :20]).save(root / "small.png")
    soundfile.write(root / "s.wav", np.sin(np.arange(8000) / 5) / 2, 8000)
    (root / "labels.csv").write_text("path,label\n")
    return root


def test_a_folder(call, folder, tmp_path) -> None:
    result = call("corrupt", folder, "out", *FOG)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "corrupted: 2 pictures",
        "unchanged: 1 files (16 bits; give --range)",
        "unchanged: 1 files (fog needs (B, 3, H, W) pictures of 32 x 32 or more)",
        "unchanged: 2 files of other kinds",
        "wrote out: a folder with fog 3, seed 0",
    ]
    before, after = _tree(folder), _tree(tmp_path / "out")
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"a/x.png", "a/y.jpg"}
    pixels = np.asarray(Image.open(folder / "a" / "x.png"))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    expected = (corrupt(x, "fog", 3, ids=["a/x.png"]) * 255).round().byte()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a" / "x.png")), expected)


def test_a_copy_depends_on_the_seed_alone(call, folder, tmp_path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert call("corrupt", folder, name, *NOISE, "--seed", seed).exit_code == 0
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two") != _tree(tmp_path / "three")
    (folder / "labels.csv").unlink()
    (folder / "a" / "x.png").unlink()  # a picture's noise does not depend on its neighbours
    call("corrupt", folder, "four", *NOISE)
    assert (tmp_path / "four" / "a" / "y.jpg").read_bytes() == (tmp_path / "one" / "a" / "y.jpg").read_bytes()


def test_sixteen_bits_with_a_range_and_only_some_files(call, folder, tmp_path) -> None:
    options = ("--corruption", "netd", "--severity", 3, "--range", 20_000, 70_000, "--only", "deep*")
    assert "corrupted: 1 pictures" in call("corrupt", folder, "out", *options).stdout
    before, after = (np.asarray(Image.open(p / "deep.png")).astype(float) for p in (folder, tmp_path / "out"))
    noise = (after - before) / 50_000  # of the range; clipped at its lower end
    assert 0.03 < noise[20:, 20:].std() < 0.12 and after.min() >= 20_000  # netd 3 is 0.075 of the range
    changed = {n for n, content in _tree(folder).items() if _tree(tmp_path / "out")[n] != content}
    assert changed == {"deep.png"}


def test_a_sound(call, folder, tmp_path) -> None:
    result = call("corrupt", folder / "s.wav", "out.wav", *HISS)
    assert result.exit_code == 0 and "corrupted: 1 sounds" in result.stdout
    (clean, rate), (noisy, other) = soundfile.read(folder / "s.wav"), soundfile.read(tmp_path / "out.wav")
    assert rate == other == 8000 and soundfile.info(tmp_path / "out.wav").subtype == "PCM_16"
    scale = (clean @ noisy) / (clean @ clean)  # the sum of sound and noise is scaled down where it would clip
    ratio = 10 * np.log10((scale * clean).var() / (noisy - scale * clean).var())
    assert abs(ratio) < 0.5  # severity 5 is 0 dB


def _film(path, count=12, sound=True):
    """A film of a moving square at 10 frames a second, with a longer tone."""
    frames = []
    for k in range(count):
        frame = np.full((48, 64, 3), 60, np.uint8)
        frame[10:20, 3 * k : 3 * k + 10] = (200, 120, 40)
        frames.append(frame)
    if not sound:
        write_film(path, frames, "libx264")
        return frames
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=8000, layout="mono")
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        tone = av.AudioFrame.from_ndarray(np.sin(np.arange(32_000) / 4)[None].astype(np.float32), "fltp", "mono")
        tone.rate = 8000
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = k if k < 6 else k + 20  # a jump of two seconds
            container.mux(video.encode(picture))
        container.mux([*video.encode(), *audio.encode(tone), *audio.encode()])
    return frames


def _packets(path, kind):
    with av.open(str(path)) as film:
        stream = getattr(film.streams, kind)[0]
        return [bytes(packet) for packet in film.demux(stream) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_film_plays_with_its_times_and_its_sound(call, tmp_path, suffix) -> None:
    _film(tmp_path / f"in{suffix}")
    for name in ("out", "again"):
        result = call("corrupt", f"in{suffix}", f"{name}{suffix}", *FOG)
        assert result.exit_code == 0 and "corrupted: 12 frames of films" in result.stdout, result.output
    (before, clean), (after, foggy) = _read_film(tmp_path / f"in{suffix}"), _read_film(tmp_path / f"out{suffix}")
    assert np.allclose(before, after, atol=1e-3) and after[6] - after[5] > 2 and foggy.shape == clean.shape
    x = torch.from_numpy(clean).permute(0, 3, 1, 2) / 255
    expected = corrupt(x, "fog", 3, ids=[f"in{suffix}"] * 12) * 255  # one draw for all frames
    assert (torch.from_numpy(foggy).permute(0, 3, 1, 2) - expected).abs().mean() < 4  # the codec's loss
    assert _packets(tmp_path / f"in{suffix}", "audio") == _packets(tmp_path / f"out{suffix}", "audio")
    assert _packets(tmp_path / f"out{suffix}", "video") == _packets(tmp_path / f"again{suffix}", "video")


def test_noise_is_new_in_every_frame_and_a_clip_corruption_sees_several(call, tmp_path) -> None:
    write_film(tmp_path / "still.mp4", [draw_frame(20)] * 5, "libx264")
    call("corrupt", "still.mp4", "noisy.mp4", *NOISE)
    noisy = _read_film(tmp_path / "noisy.mp4")[1].astype(int)
    assert np.abs(np.diff(noisy, axis=0)).mean() > 5
    _film(tmp_path / "in.mp4", sound=False)
    result = call("corrupt", "in.mp4", "shown.mp4", "--corruption", "freeze", "--severity", 5)
    assert "corrupted: 12 frames" in result.stdout
    frozen = _read_film(tmp_path / "shown.mp4")[1].astype(int)
    clean = _read_film(tmp_path / "in.mp4")[1].astype(int)
    moves = [np.abs(np.diff(one, axis=0)).mean((1, 2, 3)) > 0.5 for one in (clean, frozen)]
    assert moves[0].all() and moves[1].sum() <= 4  # 0.75 of 12 frames are frozen


@pytest.mark.parametrize("stored", ["video", "image"])
def test_a_lerobot_set_keeps_its_numbers_and_times(call, tmp_path, stored) -> None:
    root = write_set(tmp_path / "in", (6, 4), cameras=(FRONT, WRIST), stored=stored, side=48)
    result = call("corrupt", "in", "out", *FOG, "--only", "*.front")
    assert result.exit_code == 0 and f"corrupted: 10 frames of {FRONT}" in result.stdout, result.output
    before, after = _tree(root), _tree(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]} - {"meta/info.json"}
    assert changed == {
        f"videos/{FRONT}/chunk-000/file-000.mp4" if stored == "video" else "data/chunk-000/file-000.parquet"
    }
    box, fields = Box(shape=(3, 48, 48)), {"camera": FRONT, "per_second": 10.0}
    clean, foggy = (registry.make("task", "lerobot", {"data": str(p), **fields}) for p in (root, tmp_path / "out"))
    x, y = clean.load(box, 0, 10), foggy.load(box, 0, 10)
    assert x.ids == y.ids and torch.equal(x.y, y.y)
    expected = corrupt(x.x, "fog", 3, ids=[FRONT] * 10)
    assert (y.x - expected).abs().mean() < 3 / 255 < (y.x - x.x).abs().mean()
    info = json.loads((tmp_path / "out" / "meta/info.json").read_text())["features"]
    if stored == "video":
        assert info[FRONT]["info"]["video.codec"] == "h264" and info[WRIST]["info"]["video.codec"] == "av1"
    else:
        tables = [pq.read_table(p / "data/chunk-000/file-000.parquet") for p in (root, tmp_path / "out")]
        assert tables[0].schema == tables[1].schema and tables[0].drop([FRONT]) == tables[1].drop([FRONT])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("in", "out", "--corruption", "fogg", "--severity", 1), ["no corruption named 'fogg'; did you mean 'fog'?"]),
        (("in", "out", "--corruption", "fog", "--severity", 6), ["6 must be 1 to 5"]),
        (("nowhere", "out", *FOG), ["there is no nowhere; give a bag"]),
        (("in", "taken", *FOG), ["taken exists; nothing is overwritten"]),
        (("in", "in/out", *FOG), ["in/out lies in in"]),
        (("in/s.wav", "out", *FOG), ["out must end in .wav"]),
        (
            ("in/s.wav", "out.wav", *FOG),
            ["nothing in in/s.wav can be corrupted by fog (for image, ", ": 1 files of other kinds"],
        ),
        (
            ("in", "out", *FOG, "--only", "z*"),
            ["nothing in in can be corrupted by fog (for image, ", "(left out by --only)", "takes whole names, or"],
        ),
        (("in", "none/out", *FOG), ["can't write none/out: No such file"]),
        (("in", "out", *FOG, "--range", 5, 1), ["range is [5.0, 1.0]; the smaller"]),
        (("broken", "out", *FOG), ["can't read the image broken/a.png"]),
        (("broken.mp4", "out.mp4", *FOG), ["can't read the clip broken.mp4"]),
        (("cut.wav", "out.wav", *HISS), ["the recording cut.wav is cut: it ends before the length that its header"]),
    ],
)
def test_mistakes_leave_nothing(call, folder, tmp_path, arguments, words) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes((folder / "a" / "x.png").read_bytes()[:60])
    _film(tmp_path / "whole.mp4", sound=False)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.wav").write_bytes((folder / "s.wav").read_bytes()[:9000])
    before = _tree(tmp_path)
    fails(call("corrupt", *arguments), *words)
    assert _tree(tmp_path) == before


def test_lerobot_sets_in_a_folder_are_copied_as_such(call, tmp_path) -> None:
    write_set(tmp_path / "in" / "pictures", (4,), stored="image", side=40)
    films = write_set(tmp_path / "in" / "films", (4,), cameras=(FRONT, WRIST), side=40)
    info = json.loads((films / "meta/info.json").read_text())
    info["features"][WRIST]["info"] = {"is_depth_map": True}
    (films / "meta/info.json").write_text(json.dumps(info))
    result = call("corrupt", "in", "out", *NOISE)
    assert result.exit_code == 0, result.output
    assert f"corrupted: 8 frames of {FRONT}" in result.stdout
    depth = f"films/videos/{WRIST}/chunk-000/file-000.mp4"
    before, after = _tree(tmp_path / "in"), _tree(tmp_path / "out")
    assert before.keys() == after.keys() and before[depth] == after[depth]
    assert before["pictures/data/chunk-000/file-000.parquet"] != after["pictures/data/chunk-000/file-000.parquet"]


@pytest.mark.parametrize("suffix", [".webp", ".tiff", ".png"])
def test_files_of_several_pictures_stay_whole(call, folder, tmp_path, suffix) -> None:
    pages = [Image.fromarray(np.dstack([RAMP // k] * 3)) for k in (1, 2)]
    pages[0].save(folder / f"pages{suffix}", save_all=True, append_images=pages[1:])
    result = call("corrupt", folder, "out", *FOG)
    assert "unchanged: 1 files (several pictures in one file)" in result.stdout
    assert _tree(tmp_path / "out")[f"pages{suffix}"] == (folder / f"pages{suffix}").read_bytes()


def test_a_full_disk_is_one_line_and_a_killed_copy_is_removed(call, folder, tmp_path, monkeypatch) -> None:
    killed = tmp_path / name_temporary(tmp_path).name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    (killed / "out").mkdir(parents=True)

    def fill(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rlbench.corruptions.copies.copy.copy_folder", fill)
    found = call("corrupt", folder, tmp_path / "out", "--corruption", "fog", "--severity", 3)
    fails(found, f"can't write {tmp_path / 'out'}: No space left on device; free some space")
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_link_to_nothing_is_one_line(call, folder, tmp_path) -> None:
    (folder / "notes.txt").symlink_to(tmp_path / "gone.txt")
    fails(call("corrupt", folder, "out", *FOG), "can't copy ", "notes.txt: No such file", untouched=tmp_path / "out")


@pytest.mark.parametrize(("source", "words"), [("in/a", "those corrupted have 8 bits"), ("in/s.wav", "acts on none")])
def test_a_range_for_what_has_none_is_refused(call, folder, tmp_path, source, words) -> None:
    what = HISS if source.endswith("wav") else FOG
    fails(
        call("corrupt", source, f"out{Path(source).suffix}", *what, "--range", 0, 4000), "16-bit pictures, and", words
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_counts_outside_of_the_range_are_left(call, folder) -> None:
    result = call("corrupt", folder, "out", *FOG, "--range", 0, 255)
    assert "unchanged: 1 files (all counts outside of --range)" in result.stdout
