"""Real pictures, recordings and clips, laid out as published data sets are, through their readers."""

import csv
import json
from pathlib import Path

import pytest

from rlbench.core import Box, registry

GREY, CLIP = Box(shape=(1, 32, 32)), Box(shape=(3, 4, 16, 16))
MEL = Box(shape=(1, 32, 32), unit="log-mel")


def _task(name: str, root: Path):
    return registry.make("task", name, {"root": str(root)})


def _voc(path: Path, boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    found = [
        "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(*box)
        for box in boxes
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{''.join(found)}</annotation>"
    )


def _lines(pack: Path) -> list[dict[str, str]]:
    if not pack.is_dir():
        pytest.skip(f"no {pack.name}")
    with (pack / "labels.csv").open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["split"] == "test"]


def test_real_recordings_in_the_layout_of_esc50(data, tmp_path) -> None:
    lines = _lines(data / "audio_esc50")
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").symlink_to(data / "audio_esc50" / "audio")
    rows = [f"{x['path'].removeprefix('audio/')},{x['fold']},{x['label']},{x['source'][10:]}" for x in lines]
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(["filename,fold,category,src_file", *rows]) + "\n")
    task = _task("esc50", tmp_path)
    examples = task.load(MEL, 0, 50)
    assert task.size("test") == len(lines) and examples.y.tolist() == list(range(50))
    assert examples.x.flatten(1).std(1).min() > 0.01 and set(examples.sources) <= {x["source"] for x in lines}


def test_real_thermal_frames_in_the_layouts_of_llvip_and_flir(data, tmp_path) -> None:
    lines = [line for line in _lines(data / "thermal_uav_scenes") if line["label"] in ("cars", "people")][::2]
    annotations, images, boxes = [], [], 0
    for k, line in enumerate(lines):
        picture, found = data / "thermal_uav_scenes" / line["path"], json.loads(line["boxes"])
        people = [(x, y, x + w, y + h) for name, x, y, w, h in found if name == "person"]
        for place in (tmp_path / "infrared" / "test", tmp_path / "images_thermal_val" / "data"):
            place.mkdir(parents=True, exist_ok=True)
            (place / picture.name).symlink_to(picture)
        _voc(tmp_path / "Annotations" / f"{picture.stem}.xml", people, (640, 512))
        boxes += len(people)
        images.append({"id": k, "file_name": f"data/{picture.name}"})
        annotations += [{"image_id": k, "category_id": int(n == "car"), "bbox": b} for n, *b in found if n != "bicycle"]
    named = [{"id": 0, "name": "person"}, {"id": 1, "name": "car"}]
    coco = {"images": images, "categories": named, "annotations": [{"id": k, **a} for k, a in enumerate(annotations)]}
    (tmp_path / "images_thermal_val" / "coco.json").write_text(json.dumps(coco))
    llvip, flir = _task("llvip", tmp_path), _task("flir-v2", tmp_path)
    assert sum(item.label == "person" for item in llvip.items()) == boxes > 0
    assert len(flir.items()) == len(annotations)
    for task in (llvip, flir):
        examples = task.load(GREY, 0, 24)
        assert examples.x.min() >= 0 and examples.x.max() <= 1 and examples.x.flatten(1).std(1).median() > 0.02


def test_real_clips_in_the_layout_of_ucf(data, tmp_path) -> None:
    lines = _lines(data / "video_sky_objects")[:3]
    (tmp_path / "ucfTrainTestlist").mkdir()
    (tmp_path / "UCF-101" / "SkyDiving").mkdir(parents=True)
    for k, line in enumerate(lines):
        clip = tmp_path / "UCF-101" / "SkyDiving" / f"v_SkyDiving_g0{k}_c01.mp4"
        clip.symlink_to(data / "video_sky_objects" / line["path"])
    names = [f"SkyDiving/v_SkyDiving_g0{k}_c01.mp4" for k in range(3)]
    (tmp_path / "ucfTrainTestlist" / "testlist01.txt").write_text("\n".join(names) + "\n")
    examples = _task("ucf101", tmp_path).load(CLIP, 0, 9)
    assert examples.x.shape == (3, *CLIP.shape) and examples.x.flatten(1).std(1).min() > 0.01


def test_real_pictures_in_the_layout_of_caltech(data, tmp_path) -> None:
    lines = _lines(data / "image_caltech101")
    (tmp_path / "101_ObjectCategories").symlink_to(data / "image_caltech101" / "images")
    task = _task("caltech101", tmp_path)
    examples = task.load(Box(shape=(3, 32, 32)), 0, 97)
    assert task.size("test") >= len(lines) and len(set(examples.y.tolist())) == 97
    assert examples.x.flatten(1).std(1).min() > 0.02
