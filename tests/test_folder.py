"""Folders of files: small ones made here, with every mistake, and real packs where RLBENCH_DATA has them."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from rlbench import registry
from rlbench.core import Box, Label
from rlbench.errors import DataError, FieldError, SuiteError
from rlbench.suite import load_suite
from rlbench.tasks import readers

RGB, GREY = Box(shape=(3, 32, 32)), Box(shape=(1, 32, 32))
MEL, WAVE = Box(shape=(1, 64, 64), unit="log-mel"), Box(shape=(1, 8000), low=-1.0, high=1.0, unit="waveform")
CLIP = Box(shape=(3, 4, 16, 16))


def _pack(root: Path, *, suffix: str = "png", per_class: int = 3) -> Path:
    """Two classes of grey pictures whose value tells them apart; files are written by the caller if not png."""
    root.mkdir(exist_ok=True)
    lines = ["path,label,split,source"]
    for label, value in (("dark_one", 40), ("light", 200)):
        for i in range(per_class):
            for split in ("train", "val", "test"):
                name = f"{label}_{split}_{i}.{suffix}"
                Image.new("L", (40, 32), value + i).save(root / name)
                lines.append(f"{name},{label},{split},day {i}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "classes.csv").write_text("label,name\ndark_one,dark picture\nlight,light picture\n")
    (root / "prompts.txt").write_text("a photo of {a}.\n\n{}\n")
    return root


def _folder(root: Path, modality: str = "thermal", **fields):
    return registry.make("task", "folder", {"data": str(root), "modality": modality, **fields})


def test_a_pack(tmp_path) -> None:
    task = _folder(_pack(tmp_path))
    assert task.classes == (Label("dark_one", "dark picture"), Label("light", "light picture"))
    assert task.templates == ("a photo of {a}.", "{}") and task.modality == "thermal"
    assert [task.size(split) for split in ("train", "val", "test")] == [6, 6, 6]
    examples = task.load(Box(shape=(1, 32, 32), low=-1.0, high=1.0), 0, 100)
    assert examples.x.shape == (6, 1, 32, 32) and examples.x.dtype == torch.float32
    assert examples.y.tolist() == [0, 1, 0, 1, 0, 1]
    for x, y, name, source in zip(examples.x, examples.y, examples.ids, examples.sources, strict=True):
        i = int(name[-5])
        assert source == f"day {i}" and name.startswith(f"{task.classes[y].label}_test_")
        assert torch.allclose(x, torch.full_like(x, 2 * ((40, 200)[y] + i) / 255 - 1), atol=1e-6)


def test_a_prefix_never_changes(tmp_path) -> None:
    task = _folder(_pack(tmp_path, per_class=5))
    whole = task.load(GREY, 0, 10)
    assert len(set(whole.ids)) == 10 and task.load(GREY, 10, 20).x.shape == (0, 1, 32, 32)
    for start, stop in ((0, 3), (3, 7), (7, 12)):
        part = task.load(GREY, start, stop)
        assert part.ids == whole.ids[start:stop] and torch.equal(part.x, whole.x[start:stop])
        assert torch.equal(part.y, whole.y[start:stop])


def test_the_order_of_labels_csv_does_not_matter(tmp_path) -> None:
    first = _folder(_pack(tmp_path))
    head, *lines = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([head, *reversed(lines)]))
    second = _folder(tmp_path)
    assert first.load(GREY, 0, 6).ids == second.load(GREY, 0, 6).ids and first.fingerprint() == second.fingerprint()


def test_the_fingerprint_knows_every_byte_label_and_class(tmp_path) -> None:
    seen = {_folder(_pack(tmp_path)).fingerprint()}
    assert _folder(tmp_path).fingerprint() in seen
    Image.new("L", (40, 32), 41).save(tmp_path / "dark_one_test_0.png")
    seen.add(_folder(tmp_path).fingerprint())
    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text().replace("day 2", "day 1"))
    seen.add(_folder(tmp_path).fingerprint())
    seen.add(_folder(tmp_path, classes=["light", "dark_one"]).fingerprint())
    assert len(seen) == 4


def test_classes_and_templates_of_the_suite_come_first(tmp_path) -> None:
    root = _pack(tmp_path)
    (root / "classes.csv").unlink()
    (root / "prompts.txt").unlink()
    listed = _folder(root, classes=["light", "dark_one", "none"], templates=["{} here"])
    assert [one.name for one in listed.classes] == ["light", "dark one", "none"]
    assert listed.templates == ("{} here",) and listed.load(GREY, 0, 2).y.tolist() == [0, 1]
    mapped = _folder(root, classes={"light": "a lamp", "dark_one": "a cave"}, templates=["{}"])
    assert [one.name for one in mapped.classes] == ["a lamp", "a cave"]


def test_files_of_a_neighbour(tmp_path) -> None:
    _pack(tmp_path / "a")
    lines = (tmp_path / "a" / "labels.csv").read_text().splitlines()
    (tmp_path / "b").mkdir()
    moved = "\n".join([lines[0], *(f"../a/{line}" for line in lines[1:])])
    (tmp_path / "b" / "labels.csv").write_text(moved)
    for name in ("classes.csv", "prompts.txt"):
        (tmp_path / "b" / name).write_text((tmp_path / "a" / name).read_text())
    assert _folder(tmp_path / "b").load(GREY, 0, 2).x.shape == (2, 1, 32, 32)


def _edit(name: str, old: str, new: str):
    def edit(root: Path) -> None:
        assert old in (root / name).read_text()
        (root / name).write_text((root / name).read_text().replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda root: (root / "light_val_1.png").unlink(),
            r"labels.csv names files that are missing .*: light_val_1.png$",
        ),
        (lambda root: (root / "labels.csv").unlink(), r"can't read .*labels.csv: No such file"),
        (lambda root: (root / "classes.csv").unlink(), r"can't read .*classes.csv: No such file"),
        (lambda root: (root / "prompts.txt").unlink(), r"can't read .*prompts.txt.*give templates in the suite"),
        (_edit("prompts.txt", "{a}", "it"), r"templates: 'a photo of it\.' must hold \{\}"),
        (_edit("classes.csv", "light,light picture\n", ""), r"classes are dark_one; there must be two or more"),
        (_edit("classes.csv", "light,light", "lamp,light"), r"classes has no 'light', the label of light_train_0.png"),
        (
            _edit("labels.csv", ",test,", ",holdout,"),
            r"data has nothing to test: no line of .*labels.csv has the split 'test'",
        ),
        (_edit("labels.csv", "path,label", "file,label"), r"labels.csv:2: no 'path'; the columns are path,label,split"),
        (_edit("labels.csv", "light_val_0.png,light,val,day 0", "light_val_0.png,light"), r"labels.csv:12: no 'split'"),
        (_edit("labels.csv", "light_val_1.png", "light_val_0.png"), r"labels.csv:15: 'light_val_0.png' stands twice"),
    ],
)
def test_mistakes_in_a_pack(tmp_path, edit, said) -> None:
    edit(_pack(tmp_path))
    with pytest.raises(DataError, match=said):
        _folder(tmp_path)


def test_wrong_fields(tmp_path) -> None:
    _pack(tmp_path)
    with pytest.raises(FieldError, match="modality is 'depth'; it must be one of image, thermal, audio, video"):
        _folder(tmp_path, "depth")
    with pytest.raises(FieldError, match="classes is"):
        _folder(tmp_path, classes={"light": 3, "dark_one": 4})
    for field in ("rate", "seconds"):
        with pytest.raises(FieldError, match=f"{field} is 0; it must be positive"):
            _folder(tmp_path, **{field: 0})


SUITE = """\
suite: mine
version: 1
summary: A folder.
modality: thermal
task:
  name: folder
  modality: thermal
  data: DATA
  classes:
    dark_one: a cave
    light: a lamp
perturbations:
  - clean
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("DATA", "elsewhere", 8, "data: data is "),
        ("DATA", "${RLBENCH_DATA}/pack", 8, "data: '${RLBENCH_DATA}/pack' needs RLBENCH_DATA; export"),
        ("DATA", "${HOME}/pack", 8, "data: '${HOME}/pack': ${RLBENCH_DATA} at its start is the only variable"),
        (
            "    light: a lamp\n",
            "    lamp: a lamp\n",
            9,
            "classes: classes has no 'light', the label of light_train_0.png",
        ),
        ("    light: a lamp\n", "    light: a lamp\n    light: b\n", 12, "light: stands twice"),
        ("    light: a lamp\n", "    light: no\n", 9, "classes: task 'folder': classes is"),
        (
            "  modality: thermal\n",
            "  modalty: thermal\n",
            7,
            "modalty: task 'folder' has no field 'modalty'; did you mean",
        ),
        ("  modality: thermal\n", "", 6, "name: task 'folder' needs the field 'modality'"),
        (
            "  modality: thermal\n",
            "  modality: image\n",
            6,
            "name: task 'folder' is image; the suite's modality is thermal",
        ),
    ],
)
def test_mistakes_in_a_suite_have_their_line(tmp_path, monkeypatch, old, new, line, said) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    _pack(tmp_path / "pack")
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace(old, new).replace("DATA\n", "pack\n"))
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:{line}: {said}")


def test_data_is_relative_to_the_suite_or_below_rlbench_data(tmp_path, monkeypatch) -> None:
    _pack(tmp_path / "pack")
    path = tmp_path / "mine.yaml"
    monkeypatch.chdir("/")
    path.write_text(SUITE.replace("DATA", "pack"))
    relative = load_suite(path).task
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path))
    path.write_text(SUITE.replace("DATA", "${RLBENCH_DATA}/pack"))
    assert load_suite(path).task.fingerprint() == relative.fingerprint()


@pytest.mark.parametrize("content", [b"", b"not a picture", "half"])
def test_an_unreadable_image_is_named(tmp_path, content) -> None:
    path = tmp_path / "broken.png"
    if content == "half":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"can't read the image .*broken.png"):
        readers.image(path, GREY)


def test_images_keep_their_aspect_and_their_8_bits(tmp_path) -> None:
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[None] * 3, (32, 64))
    Image.fromarray(columns).save(tmp_path / "a.png")
    x = readers.image(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(x[0], columns[:, 16:48] / np.float32(255))
    assert readers.image(tmp_path / "a.png", RGB).shape == (3, 32, 32)
    small = readers.image(tmp_path / "a.png", Box(shape=(1, 16, 16)))
    np.testing.assert_array_equal(small * 255, np.round(small * 255))


def test_resizing_averages_fine_detail(tmp_path) -> None:
    checks = np.indices((128, 128)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(readers.image(tmp_path / "a.png", GREY) - 0.5).max() < 0.02


def test_a_16_bit_image_is_refused_rather_than_clipped(tmp_path) -> None:
    Image.fromarray(np.full((32, 32), 30000, dtype=np.uint16)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"wide.png has more than 8 bits"):
        readers.image(tmp_path / "wide.png", GREY)


def test_colours_become_grey_by_their_luma(tmp_path) -> None:
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "red.png")
    assert readers.image(tmp_path / "red.png", GREY) == pytest.approx(0.299, abs=1 / 255)


def test_the_window_is_the_loudest_or_the_whole_in_silence() -> None:
    wave = np.concatenate([np.full(10, 0.1), np.full(5, -0.9), np.full(10, 0.2)])
    np.testing.assert_array_equal(readers.window(wave, 5), np.full(5, -0.9))
    np.testing.assert_array_equal(readers.window(np.ones(3), 6), [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(readers.window(wave, 25), wave)


@pytest.mark.parametrize("suffix", ["wav", "ogg", "flac"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_is_at_its_pitch_in_any_format_and_rate(tmp_path, suffix, rate) -> None:
    path = tmp_path / f"tone.{suffix}"
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    soundfile.write(path, np.stack([tone, tone], axis=1), rate)
    mel = readers.audio(path, MEL, rate=8000, seconds=1.0)
    assert mel.shape == (1, 64, 64) and mel.dtype == np.float32 and 0 <= mel.min() <= mel.max() == 1
    wave = readers.audio(path, WAVE, rate=8000, seconds=1.0) * 2 - 1
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
        readers.audio(path, MEL, rate=8000, seconds=1.0)


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
    x = readers.video(_clip(tmp_path / "a.mp4", values), CLIP)
    assert x.shape == (3, 4, 16, 16) and x.dtype == np.float32
    assert x.mean((0, 2, 3)) * 255 == pytest.approx([values[t] for t in (0, 3, 6, 9)], abs=4)
    short = readers.video(_clip(tmp_path / "b.mp4", [50, 150]), CLIP)
    assert short.mean((0, 2, 3)) * 255 == pytest.approx([50, 50, 50, 150], abs=4)


def test_an_unreadable_clip_is_named(tmp_path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"can't read the clip .*broken.mp4"):
        readers.video(tmp_path / "broken.mp4", CLIP)
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"can't read the clip .*sound.wav"):
        readers.video(tmp_path / "sound.wav", CLIP)


@pytest.fixture
def data() -> Path:
    root = Path(os.environ.get("RLBENCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no data packs: set RLBENCH_DATA")
    return root


@pytest.mark.parametrize(
    ("pack", "box", "classes", "test"),
    [
        ("thermal_uav_objects", GREY, 4, 480),
        ("thermal_all8", GREY, 8, 650),
        ("audio_digits", MEL, 10, 240),
        ("image_grocery", RGB, 34, 272),
        ("video_motion", CLIP, 3, 84),
    ],
)
def test_real_packs(data, pack, box, classes, test) -> None:
    if not (data / pack).is_dir():
        pytest.skip(f"no {pack}")
    task = _folder(data / pack, pack.split("_")[0])
    assert (len(task.classes), task.size("test")) == (classes, test)
    examples = task.load(box, 0, 8)
    assert examples.x.shape == (8, *box.shape) and examples.x.min() >= 0 and examples.x.max() <= 1
    assert examples.x.flatten(1).std(1).min() > 0.005
    assert examples.y.tolist() == [i % classes for i in range(8)] and all(examples.sources)
    assert len(task.fingerprint()) == 16
