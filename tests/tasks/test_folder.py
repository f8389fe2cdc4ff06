"""Folders of files: small ones made here, with every mistake, and real packs where RLBENCH_DATA has them."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from rlbench.core import Box, Label, registry
from rlbench.core.errors import DataError, FieldError, SuiteError
from rlbench.core.suite import load_suite

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


def test_the_fingerprint_depends_on_every_byte_label_and_class(tmp_path) -> None:
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
    ("edit", "message"),
    [
        (
            lambda root: (root / "light_val_1.png").unlink(),
            r"labels.csv names files that are missing .*: light_val_1.png$",
        ),
        (
            lambda root: (root / "labels.csv").unlink(),
            r"there is no .*labels.csv; it is a list with the columns path,label,split",
        ),
        (
            lambda root: (root / "classes.csv").unlink(),
            r"there is no .*classes.csv; it is a list with the columns label,name",
        ),
        (lambda root: (root / "prompts.txt").unlink(), r"can't read .*prompts.txt.*give templates in the suite"),
        (_edit("prompts.txt", "{a}", "it"), r"templates: 'a photo of it\.' must contain \{\}"),
        (_edit("classes.csv", "light,light picture\n", ""), r"classes are dark_one; there must be two or more"),
        (_edit("classes.csv", "light,light", "lamp,light"), r"classes has no 'light', the label of light_train_0.png"),
        (
            _edit("labels.csv", ",test,", ",val,"),
            r"data has nothing to test: no line of .*labels.csv has the split 'test'",
        ),
        (_edit("labels.csv", "path,label", "file,label"), r"labels.csv has no column 'path'; it needs path, label, sp"),
        (
            _edit("labels.csv", "light_val_0.png,light,val,day 0", "light_val_0.png,light"),
            r"labels.csv:12: 2 values for 4 columns$",
        ),
        (_edit("labels.csv", "light_val_1.png", "light_val_0.png"), r"labels.csv:15: 'light_val_0.png' appears twice"),
    ],
)
def test_mistakes_in_a_pack(tmp_path, edit, message) -> None:
    edit(_pack(tmp_path))
    with pytest.raises(DataError, match=message):
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
    ("old", "new", "line", "message"),
    [
        ("DATA", "elsewhere", 8, "data: data is "),
        ("DATA", "${RLBENCH_DATA}/pack", 8, "data: '${RLBENCH_DATA}/pack' needs RLBENCH_DATA; export"),
        ("DATA", "${HOME}/pack", 8, "data: '${HOME}/pack': the only variable is ${RLBENCH_DATA}, at the start"),
        (
            "    light: a lamp\n",
            "    lamp: a lamp\n",
            9,
            "classes: classes has no 'light', the label of light_train_0.png",
        ),
        ("    light: a lamp\n", "    light: a lamp\n    light: b\n", 12, "light: appears twice"),
        ("    light: a lamp\n", "    light: no\n", 9, "classes: task 'folder': classes is"),
        (
            "  modality: thermal\n",
            "  modalty: thermal\n",
            7,
            "modalty: task 'folder' has no field 'modalty'; did you mean",
        ),
        (
            "  modality: thermal\n",
            "  modality: image\n",
            6,
            "name: task 'folder' is image; the suite's modality is thermal",
        ),
    ],
)
def test_mistakes_in_a_suite_are_reported_with_their_line(tmp_path, monkeypatch, old, new, line, message) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    _pack(tmp_path / "pack")
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace(old, new).replace("DATA\n", "pack\n"))
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


def test_data_is_relative_to_the_suite_or_below_rlbench_data(tmp_path, monkeypatch) -> None:
    _pack(tmp_path / "pack")
    path = tmp_path / "mine.yaml"
    monkeypatch.chdir("/")
    path.write_text(SUITE.replace("DATA", "pack"))
    relative = load_suite(path).task
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path))
    path.write_text(SUITE.replace("DATA", "${RLBENCH_DATA}/pack"))
    assert load_suite(path).task.fingerprint() == relative.fingerprint()


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
