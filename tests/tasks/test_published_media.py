"""Published crops, recordings and clips: small trees of every layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from films import write_talkie
from PIL import Image

from rlbench.core import Box, registry
from rlbench.core.errors import DataError

GREY, CLIP = Box(shape=(1, 32, 32)), Box(shape=(3, 4, 16, 16))
MEL = Box(shape=(1, 32, 32), unit="log-mel")
FBANK = Box(shape=(1, 28, 70), low=-16.0, high=13.0, unit="fbank")


def _task(name: str, root: Path, **fields):
    return registry.make("task", name, {"root": str(root), **fields})


def _frame(path: Path, boxes: list[tuple[int, int, int, int]], size: tuple[int, int] = (160, 120)) -> None:
    """A dark picture with a box of brightness 100, 110, ... at each place."""
    pixels = np.full(size[::-1], 20, dtype=np.uint8)
    for k, (left, top, right, bottom) in enumerate(boxes):
        pixels[top:bottom, left:right] = 100 + 10 * k
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _voc(path: Path, boxes: list[tuple[int, int, int, int]], size: tuple[int, int] = (160, 120)) -> None:
    edges = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>person</name><bndbox>{''.join(f'<{e}>{v}</{e}>' for e, v in zip(edges, box, strict=True))}"
        "</bndbox></object>"
        for box in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"
    )


PEOPLE = [(10, 10, 30, 60), (100, 40, 120, 100)]


def _llvip(root: Path) -> Path:
    for k, boxes in enumerate((PEOPLE, PEOPLE[:1], [])):
        _frame(root / "infrared" / "test" / f"26000{k}.png", boxes)
        _voc(root / "Annotations" / f"26000{k}.xml", boxes)
    return root


def test_llvip_has_its_people_and_as_much_background(tmp_path) -> None:
    task = _task("llvip", _llvip(tmp_path))
    examples = task.load(GREY, 0, 99)
    assert [one.name for one in task.classes] == ["background", "people"] and examples.y.tolist() == [0, 1] * 3
    for item, x in zip(task.items(), examples.x, strict=True):
        left, top, right, bottom = item.part
        assert (right - left, bottom - top) in [(20, 50), (20, 60)] and left >= 0 and right <= 160 and bottom <= 120
        if item.label == "person":
            assert tuple(item.part) in PEOPLE and float(x.min()) * 255 >= 99
        else:
            assert torch.allclose(x, torch.tensor(20 / 255))  # no person in it
    assert set(examples.sources) == {"260000", "260001"}
    again = _task("llvip", tmp_path)
    assert again.items() == task.items() and again.fingerprint() == task.fingerprint()


def test_a_crowd_leaves_no_place_for_background(tmp_path) -> None:
    crowd = [(x, 0, x + 20, 120) for x in range(0, 160, 20)]
    _frame(tmp_path / "infrared" / "test" / "1.png", crowd)
    _voc(tmp_path / "Annotations" / "1.xml", crowd)
    assert [item.label for item in _task("llvip", tmp_path).items()] == ["person"] * 8


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda root: (root / "Annotations" / "260001.xml").unlink(), "can't read the boxes of .*260001.xml"),
        (
            lambda root: (root / "Annotations" / "260001.xml").write_text("<annotation>"),
            "260001.xml: no element found",
        ),
        (
            lambda root: (root / "Annotations" / "260001.xml").write_text("<annotation><size/></annotation>"),
            "260001.xml: there is no size/width",
        ),
        (lambda root: _voc(root / "Annotations" / "260001.xml", [(500, 500, 600, 600)]), "nothing of it lies in"),
    ],
)
def test_wrong_boxes_are_named(tmp_path, edit, message) -> None:
    edit(_llvip(tmp_path))
    with pytest.raises(DataError, match=message):
        _task("llvip", tmp_path).load(GREY, 0, 99)


def test_crops_that_languagebind_published(tmp_path) -> None:
    for folder in ("background", "person"):
        _frame(tmp_path / "val" / folder / "1.jpg", [])
    task = _task("llvip", tmp_path)
    assert [item.id for item in task.items()] == ["background/1.jpg", "person/1.jpg"]
    assert task.size("val") == task.size("train") == 0  # their val is the test split
    _frame(tmp_path / "val" / "other vehicle" / "2.jpg", [])
    with pytest.raises(DataError, match="other vehicle is none of the 2 classes"):
        _task("llvip", tmp_path).size("test")


def _coco(path: Path, name: str, categories: dict[int, str], boxes: list[tuple[int, list[float]]]) -> None:
    annotations = [{"id": 70 + k, "image_id": 5, "category_id": c, "bbox": b} for k, (c, b) in enumerate(boxes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 5, "file_name": name}]
    named = [{"id": number, "name": category} for number, category in categories.items()]
    path.write_text(json.dumps({"images": images, "categories": named, "annotations": annotations}))


def test_flir_is_read_from_coco_boxes(tmp_path) -> None:
    boxes = [(1, [10, 10, 20, 50]), (3, [100, 40, 20.4, 60]), (9, [0, 0, 5, 5]), (17, [50, 0, 3, 9])]
    categories = {1: "person", 3: "car", 9: "boat", 17: "dog"}
    _coco(tmp_path / "val" / "thermal_annotations.json", "thermal_8_bit/FLIR_08865.jpeg", categories, boxes)
    _frame(tmp_path / "val" / "thermal_8_bit" / "FLIR_08865.jpeg", PEOPLE)
    task = _task("flir-v1", tmp_path)
    examples = task.load(GREY, 0, 9)
    assert [task.classes[y].name for y in examples.y] == ["car", "dog", "person"]
    assert examples.ids == ("FLIR_08865/71", "FLIR_08865/73", "FLIR_08865/70")
    assert [round(float(x.mean()) * 255) for x in examples.x] == pytest.approx([110, 20, 100], abs=3)
    assert _task("flir-v1", tmp_path, smallest=4).size("test") == 2 and task.size("val") == 0


def test_flir_2_has_its_own_folders_and_clips(tmp_path) -> None:
    name = "data/video-BzZspxAweF8AnKhWK-frame-000745-SSCRtAHcFjphNPczJ.jpg"
    _coco(
        tmp_path / "images_thermal_val" / "coco.json",
        name,
        {79: "other vehicle", 10: "light"},
        [(79, [10, 10, 20, 50])],
    )
    _frame(tmp_path / "images_thermal_val" / name, PEOPLE)
    task = _task("flir-v2", tmp_path)
    examples = task.load(GREY, 0, 1)
    assert task.classes[int(examples.y)].name == "construction equipment or trailers"
    assert examples.sources == ("video-BzZspxAweF8AnKhWK",)
    (tmp_path / "images_thermal_val" / "coco.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"can't read the boxes of .*coco.json: KeyError: 'categories'"):
        _task("flir-v2", tmp_path).size("test")


def _tone(path: Path, hertz: float, rate: int = 16_000, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate), rate)


def test_esc50_and_its_folds(tmp_path) -> None:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for k, (label, fold) in enumerate((("dog", 1), ("clock_alarm", 2), ("dog", 5))):
        rows.append(f"{fold}-{k}-A-0.wav,{fold},0,{label},False,{k // 2},A")
        _tone(tmp_path / "audio" / f"{fold}-{k}-A-0.wav", 500 * (k + 1))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    task = _task("esc50", tmp_path)
    examples = task.load(MEL, 0, 9)
    assert [task.classes[y].name for y in examples.y] == ["clock alarm", "dog", "dog"]
    assert set(examples.sources) == {"freesound-0", "freesound-1"} and examples.x.shape == (3, 1, 32, 32)
    assert task.load(FBANK, 0, 1).x.shape == (1, *FBANK.shape)
    part = _task("esc50", tmp_path, folds=[1])
    assert (part.size("test"), part.size("train")) == (1, 2) and part.fingerprint() != task.fingerprint()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows).replace("category", "kind") + "\n")
    with pytest.raises(DataError, match=r"esc50.csv has no column 'category'; it needs filename, fold, category"):
        _task("esc50", tmp_path).size("test")


def test_urbansound_and_its_folders(tmp_path) -> None:
    _tone(tmp_path / "audio" / "fold5" / "100032-3-0-0.wav", 700)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text(
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark\n"
    )
    examples = (task := _task("urbansound8k", tmp_path)).load(MEL, 0, 1)
    assert task.classes[int(examples.y)].name == "dog bark" and examples.sources == ("freesound-100032",)


def test_vggsound_is_what_is_left_of_it(tmp_path) -> None:
    (tmp_path / "vggsound.csv").write_text(
        '---g-f_I2yQ,1,"people marching",test\n--0PQM4-hqg,30,waterfall burbling,test\n'
        "gone,2,waterfall burbling,test\n-0,3,zebra braying,train\n"
    )
    write_talkie(tmp_path / "films" / "---g-f_I2yQ_000001.mp4")
    _tone(tmp_path / "test" / "waterfall" / "--0PQM4-hqg_000030.flac", 1000.0)
    task = _task("vggsound", tmp_path)
    assert [one.name for one in task.classes] == ["people marching", "waterfall burbling", "zebra braying"]
    examples = task.load(Box(shape=(1, 16_000), low=-1.0, high=1.0, unit="waveform", rate=16_000), 0, 9)
    assert examples.ids == ("---g-f_I2yQ_000001", "--0PQM4-hqg_000030") and examples.y.tolist() == [0, 1]
    for wave in examples.x:  # a film's sound and a sound file of the same tone
        assert np.abs(np.fft.rfft(wave[0].numpy())).argmax() == pytest.approx(1000, abs=2)


def test_ucf_and_its_splits(tmp_path) -> None:
    for label, clip in (("YoYo", "v_YoYo_g01_c01"), ("YoYo", "v_YoYo_g01_c02"), ("Archery", "v_Archery_g02_c01")):
        write_talkie(tmp_path / "UCF-101" / label / f"{clip}.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\nArchery/v_Archery_g02_c01.avi\n")
    (lists / "trainlist01.txt").write_text("YoYo/v_YoYo_g01_c02.avi 101\n")
    task = _task("ucf101", tmp_path)
    examples = task.load(CLIP, 0, 9)
    assert [task.classes[y].name for y in examples.y] == ["Archery", "Yo Yo"]
    assert examples.sources == ("v_Archery_g02", "v_YoYo_g01") and task.size("train") == 1
    assert examples.x.mean((0, 1, 3, 4)) * 255 == pytest.approx([0, 40, 80, 120], abs=4)
    with pytest.raises(DataError, match=r"has no file ucfTrainTestlist/testlist02.txt"):
        _task("ucf101", tmp_path, fold=2).size("test")


def test_kinetics_by_folders_or_by_its_list(tmp_path) -> None:
    write_talkie(tmp_path / "a" / "val" / "air_drumming" / "_dbcJuKJQNs_000040_000050.mp4")
    write_talkie(tmp_path / "b" / "val" / "_dbcJuKJQNs_000040_000050.mp4")
    (tmp_path / "b" / "annotations").mkdir()
    (tmp_path / "b" / "annotations" / "val.csv").write_text(
        'label,youtube_id,time_start,time_end,split\n"air drumming",_dbcJuKJQNs,40,50,val\nabseiling,gone,1,11,val\n'
    )
    one, other = (_task("kinetics400", tmp_path / name).load(CLIP, 0, 9) for name in "ab")
    assert one.ids == other.ids == ("_dbcJuKJQNs_000040_000050",) and one.y.tolist() == other.y.tolist() == [1]
