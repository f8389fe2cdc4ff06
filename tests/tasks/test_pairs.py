"""Paired sensors of published data and of folders: the same ids, labels and order, and errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from films import write_film, write_talkie
from pairs import LABELS, write_pairs, write_picture

from rlbench.core import Box, Examples, Split, registry
from rlbench.core.errors import DataError, FieldError
from rlbench.core.sensors import SensorTask, joint_box

COLOUR, GREY, CLIP = Box(shape=(3, 8, 8)), Box(shape=(1, 8, 8)), Box(shape=(3, 4, 16, 16))
WAVE = Box(shape=(1, 16_000), low=-1.0, high=1.0, unit="waveform", rate=16_000)
BOXES = {"image": COLOUR, "thermal": GREY, "depth": GREY, "video": CLIP, "audio": WAVE}


def _sensors(name: str, fields: dict, *sensors: str) -> SensorTask:
    return SensorTask({sensor: registry.make("task", name, {**fields, "modality": sensor}) for sensor in sensors})


def _load(task: SensorTask, split: Split = "test") -> dict[str, Examples]:
    """All examples of each sensor, which `SensorTask` has checked to be of the same things."""
    task.check()
    task.load(joint_box({sensor: BOXES[sensor] for sensor in task.tasks}), 0, 99, split)
    return {sensor: one.load(BOXES[sensor], 0, 99, split) for sensor, one in task.tasks.items()}


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_folder_of_pairs(tmp_path) -> None:
    task = _sensors("paired-folder", {"data": str(write_pairs(tmp_path, splits=("test", "train")))}, "image", "thermal")
    found = _load(task)
    assert found["image"].ids == found["thermal"].ids and set(found["image"].ids) == {f"test{k}" for k in range(6)}
    for k, name in enumerate(found["image"].ids):
        assert float(found["image"].x[k].mean()) * 255 == pytest.approx(10 * int(name[-1]) + 5, abs=1e-3)
        assert float(found["thermal"].x[k].mean()) * 255 == pytest.approx(10 * int(name[-1]), abs=1e-3)
        assert found["image"].y[k] == int(name[-1]) % 2
    assert [label.label for label in task.classes] == list(LABELS) and task.pairing == "paired"
    assert task.tasks["thermal"].templates == ("a thermal picture of {}.",)
    assert task.tasks["image"].templates == ("a picture of {}.",)
    assert task.size("train") == 6 and task.size("val") == 0
    assert len({one.fingerprint() for one in task.tasks.values()}) == 2


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("bird", "drone", "cat"), "at place 2, no class and 'cat'"),
        (("drone", "bird"), "at place 0, 'bird' and 'drone'"),
    ],
)
def test_the_class_that_differs_is_named(tmp_path, labels, said) -> None:
    fields = ({"data": str(write_pairs(tmp_path / "-".join(one), labels=one))} for one in (LABELS, labels))
    tasks = (registry.make("task", "paired-folder", one | {"modality": "image"}) for one in fields)
    with pytest.raises(DataError, match=f"image and thermal have different classes: {said}"):
        SensorTask(dict(zip(("image", "thermal"), tasks, strict=True))).check()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda root: (root / "thermal" / "t-test3.png").unlink(), r"labels.csv:5: 'test3' has no thermal: .* t-test3"),
        (lambda root: (root / "thermal" / "t-test3.png").write_bytes(b"PNG"), r"can't read the image .*t-test3.png"),
        (lambda root: _edit(root, "image/test3.png,thermal/t-test3.png", "image/test3.png,"), "labels.csv:5: no 'ther"),
        (lambda root: _edit(root, "image,thermal", "image,warm"), "labels.csv has no column 'thermal'"),
        (lambda root: _edit(root, "test3,", "test2,"), "'test2' exists twice"),
        (lambda root: _edit(root, "t-test3", "t-test2"), "'thermal/t-test2.png' appears twice"),
        (lambda root: _edit(root, ",test,", ",val,"), "nothing to test"),
        (lambda root: _edit(root, "drone,test", "kite,test"), "has the label 'kite', which is not a class"),
    ],
)
def test_a_wrong_pair_is_named(tmp_path, edit, message) -> None:
    edit(write_pairs(tmp_path))
    with pytest.raises(DataError, match=message.replace(" .* ", ".*")):
        registry.make("task", "paired-folder", {"data": str(tmp_path), "modality": "thermal"}).load(GREY, 0, 9)


def _edit(root: Path, old: str, new: str) -> None:
    text = (root / "labels.csv").read_text()
    assert old in text
    (root / "labels.csv").write_text(text.replace(old, new))


def test_llvip_pairs_have_the_same_crops(tmp_path) -> None:
    box = "<object><bndbox><xmin>4</xmin><ymin>6</ymin><xmax>14</xmax><ymax>26</ymax></bndbox></object>"
    for k in (1, 2):
        _put(
            tmp_path / "Annotations" / f"19000{k}.xml",
            f"<annotation><size><width>64</width><height>48</height></size>{box}</annotation>",
        )
        infrared, visible = np.full((48, 64), 30 * k, np.uint8), np.full((48, 64, 3), 10 * k, np.uint8)
        infrared[6:26, 4:14], visible[6:26, 4:14] = 200 + k, 100 + k
        write_picture(tmp_path / "infrared" / "test" / f"19000{k}.png", infrared)
        write_picture(tmp_path / "visible" / "test" / f"19000{k}.png", visible)
    task = _sensors("llvip", {"root": str(tmp_path)}, "image", "thermal")
    found = _load(task)
    assert len(found["image"].ids) == 4 and task.tasks["image"].items() != task.tasks["thermal"].items()
    for k, name in enumerate(found["image"].ids):
        number = int(name.split("/")[0][-1])
        person = "person" in name
        for sensor, (on, off) in {"image": (100 + number, 10 * number), "thermal": (200 + number, 30 * number)}.items():
            assert torch.allclose(found[sensor].x[k] * 255, torch.tensor(float(on if person else off)))
    (tmp_path / "visible" / "test" / "190002.png").unlink()
    with pytest.raises(
        DataError, match=r"infrared/test/190002.png has no partner of the same name in infrared and visible"
    ):
        registry.make("task", "llvip", {"root": str(tmp_path), "modality": "image"}).size("test")
    assert registry.make("task", "llvip", {"root": str(tmp_path)}).size("test") == 4


def test_nyud_pairs_by_their_kind_of_room(tmp_path) -> None:
    for k, kind in enumerate(("kitchen", "cafe", "living_room")):
        _put(tmp_path / "test" / "scene_class" / f"000{k}.txt", kind)
        write_picture(tmp_path / "test" / "depth" / f"000{k}.png", np.full((12, 16), 1000 * (k + 1), np.uint16))
        write_picture(tmp_path / "test" / "rgb" / f"000{k}.png", np.full((12, 16, 3), 40 * (k + 1), np.uint8))
    task = _sensors("nyud", {"root": str(tmp_path)}, "image", "depth")
    found = _load(task)
    names = {task.classes[int(y)].label: name for y, name in zip(found["image"].y, found["image"].ids, strict=True)}
    assert names == {"kitchen": "kitchen/0000.png", "others": "others/0001.png", "living_room": "living_room/0002.png"}
    bright = dict(zip(found["image"].ids, (255 * found["image"].x.mean((1, 2, 3))).round().tolist(), strict=True))
    assert bright == {"kitchen/0000.png": 40, "others/0001.png": 80, "living_room/0002.png": 120}
    (tmp_path / "test" / "rgb" / "0001.png").unlink()
    with pytest.raises(DataError, match="0001 lacks its picture for image"):
        registry.make("task", "nyud", {"root": str(tmp_path), "modality": "image"}).size("test")


def test_nyud_without_colour(tmp_path) -> None:
    write_picture(tmp_path / "data" / "val" / "kitchen" / "a.png", np.full((8, 8), 900, np.uint16))
    with pytest.raises(DataError, match="has no folder test/rgb with test/scene_class; NYU Depth v2 must contain"):
        registry.make("task", "nyud", {"root": str(tmp_path), "modality": "image"}).size("test")


def test_vggsound_films_are_pairs(tmp_path) -> None:
    _put(tmp_path / "vggsound.csv", "a,1,barking,test\nb,2,braying,test\nc,3,barking,test\nd,4,braying,test\n")
    for name, hertz in (("a_000001", 500.0), ("b_000002", 900.0)):
        write_talkie(tmp_path / "films" / f"{name}.mp4", hertz)
    write_film(tmp_path / "films" / "c_000003.mp4", [np.zeros((32, 48, 3), np.uint8)] * 4)  # without sound
    found = _load(task := _sensors("vggsound", {"root": str(tmp_path), "audiovisual": True}, "video", "audio"))
    assert set(found["audio"].ids) == {"a_000001", "b_000002"}
    assert any("1 without sound" in note for note in task.tasks["video"].notes())
    for name, wave in zip(found["audio"].ids, found["audio"].x, strict=True):
        assert np.abs(np.fft.rfft(wave[0].numpy())).argmax() == pytest.approx({"a": 500, "b": 900}[name[0]], abs=2)
    assert found["video"].x.mean((0, 1, 3, 4)) * 255 == pytest.approx([0, 40, 80, 120], abs=4)
    (tmp_path / "films" / "d_000004.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match=r"can't read the film .*d_000004.mp4"):
        _load(_sensors("vggsound", {"root": str(tmp_path), "audiovisual": True}, "video", "audio"))


def test_kinetics_clips_with_their_sound(tmp_path) -> None:
    talkies = {"abseiling": 400.0, "air_drumming": 800.0}
    for label, hertz in talkies.items():
        write_talkie(tmp_path / "val" / label / f"{label[:3]}_000040_000050.mp4", hertz)
    write_film(tmp_path / "val" / "abseiling" / "mute_000001_000011.mp4", [np.zeros((32, 48, 3), np.uint8)] * 4)
    found = _load(_sensors("kinetics400", {"root": str(tmp_path), "audiovisual": True}, "video", "audio"))
    assert found["video"].y.tolist() == [0, 1] and found["audio"].ids == found["video"].ids
    for wave, hertz in zip(found["audio"].x, talkies.values(), strict=True):
        assert np.abs(np.fft.rfft(wave[0].numpy())).argmax() == pytest.approx(hertz, abs=2)
    with pytest.raises(DataError, match="video has 3 test examples and audio has 2"):
        _load(_sensors("kinetics400", {"root": str(tmp_path)}, "video", "audio"))
    with pytest.raises(FieldError, match="views is 15; it is for video"):
        registry.make("task", "kinetics400", {"modality": "audio", "views": 15})


@pytest.mark.parametrize(
    ("name", "fields"),
    [("llvip", {"modality": "thermal"}), ("nyud", {"modality": "depth"}), ("kinetics400", {"audiovisual": False})],
)
def test_a_field_of_pairs_changes_nothing_at_its_default(name, fields) -> None:
    assert registry.make("task", name) == registry.make("task", name, fields)


def _folder(root: Path, counts: dict[str, int], level: int) -> Path:
    """A folder of thermal pictures, so many of each label."""
    lines = ["path,label,split,source"]
    for label, count in counts.items():
        for k in range(count):
            write_picture(root / label / f"{k}.png", np.full((8, 8), level + k, np.uint8))
            lines.append(f"{label}/{k}.png,{label},test,{label}{k}")
    _put(root / "labels.csv", "\n".join(lines) + "\n")
    _put(root / "prompts.txt", "{}\n")
    return root


def test_folders_that_share_only_their_classes(tmp_path) -> None:
    one = _folder(tmp_path / "one", {"bird": 5, "drone": 3, "boat": 4}, 10)
    other = _folder(tmp_path / "other", {"drone": 6, "bird": 3, "car": 1}, 90)
    fields = {"modality": "thermal", "classes": ["bird", "drone"], "per_class": 3}
    tasks = [registry.make("task", "folder", {"data": str(root), **fields}) for root in (one, other)]
    first, second = (task.load(GREY, 0, 99) for task in tasks)
    assert first.y.tolist() == second.y.tolist() == [0, 1] * 3 and first.ids != second.ids
    assert {task.pairing for task in tasks} == {"class-paired"}
    with pytest.raises(DataError, match=r"per_class is 4; .*has 3 test examples of 'drone'"):
        registry.make("task", "folder", {"data": str(one), **fields, "per_class": 4})
    with pytest.raises(FieldError, match="per_class is -1; it must be positive"):
        registry.make("task", "folder", {"data": str(one), **fields, "per_class": -1})


def test_the_real_pack_of_pairs(data) -> None:
    root = data / "pair_rgbt_sky"
    if not root.is_dir():
        pytest.skip("no pack pair_rgbt_sky")
    task = _sensors("paired-folder", {"data": str(root)}, "image", "thermal", "video")
    task.check()
    assert task.size("test") == 145 and len(task.classes) == 4
    found = task.load(joint_box({sensor: BOXES[sensor] for sensor in task.tasks}), 0, 8)
    assert found.y.tolist() == [0, 1, 2, 3] * 2 and float(found.x.std()) > 0.01
    assert len(task.tasks["thermal"].templates) >= 1


def test_the_real_sky_packs_are_class_paired(data) -> None:
    classes = {"drone": "drone", "helicopter": "helicopter"}
    packs = {"thermal": "thermal_sky_objects", "video": "video_sky_objects", "audio": "audio_drone"}
    tasks = {
        sensor: registry.make(
            "task", "folder", {"data": str(data / pack), "modality": sensor, "classes": classes, "per_class": 12}
        )
        for sensor, pack in packs.items()
    }
    task = SensorTask(tasks)
    task.check()
    assert task.size("test") == 24 and task.pairing == "class-paired"
    found = task.load(joint_box({"thermal": GREY, "video": CLIP, "audio": WAVE}), 0, 4)
    assert found.y.tolist() == [0, 1, 0, 1] and all(part.count("+") == 2 for part in found.ids)
