"""Retrieval across sensors as a task: its labels, its complete gallery, and its errors."""

from pathlib import Path

import pytest
import torch
from pairs import write_pairs

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, FieldError, RLBenchError, UnknownName
from rlbench.core.suite import load_suites
from rlbench.tasks.cross_modal import CrossModal

IMAGE, THERMAL = Box(shape=(3, 8, 8)), Box(shape=(1, 8, 8))
WAVE = Box(shape=(1, 4000), low=-1.0, high=1.0, unit="waveform", rate=8000)


def _scenes(**fields: object) -> CrossModal:
    fields = {"of": "scenes", "modality": "thermal", "gallery": "image", "size": 24, **fields}
    task: CrossModal = registry.make("task", "cross-modal", fields)
    return task


def _folder(root: Path, **fields: object) -> CrossModal:
    fields = {"of": "paired-folder", "data": str(root), "modality": "thermal", "gallery": "image", **fields}
    task: CrossModal = registry.make("task", "cross-modal", fields)
    return task


def test_queries_are_those_of_the_sensor_and_items_those_of_the_other() -> None:
    task, thermal, image = _scenes(), *(registry.make("task", "scenes", {"modality": m}) for m in ("thermal", "image"))
    items, queries = task.load_gallery(IMAGE, 0, 99), task.load(THERMAL, 0, 12)
    assert torch.equal(items.x, image.load(IMAGE, 0, 24).x) and torch.equal(queries.x, thermal.load(THERMAL, 0, 12).x)
    assert items.y.tolist() == [k % 10 for k in range(24)] and queries.ids == items.ids[:12]
    assert task.classes == thermal.classes and task.templates == thermal.templates and task.modality == "thermal"
    assert task.size("test") == task.gallery_size == 24 and task.form == "(scenes:image)"


def test_each_scene_is_a_class_where_the_very_scene_is_asked_for() -> None:
    task = _scenes(match="scene", at=5)
    assert task.load_gallery(IMAGE, 4, 8).y.tolist() == task.load(THERMAL, 4, 8).y.tolist() == [4, 5, 6, 7]
    assert len(task.classes) == 24 and task.form == "(scenes:image)(R@5)"


def test_a_fingerprint_depends_on_both_sensors_and_the_size() -> None:
    tasks = [_scenes(), _scenes(gallery="audio"), _scenes(size=25), _scenes(match="scene"), _scenes(subset="unseen")]
    assert len({task.fingerprint() for task in tasks}) == 5 and _scenes().fingerprint() == _scenes().fingerprint()


def test_other_series_have_other_scenes() -> None:
    task = _scenes(series=2)
    assert "series 2" in task.load(THERMAL, 0, 1).ids[0] and task.fingerprint() != _scenes().fingerprint()


def test_sounds_are_also_waveforms() -> None:
    task = _scenes(modality="audio")
    scenes = registry.make("task", "scenes", {"modality": "audio"})
    assert torch.equal(task.waves(WAVE, 0, 2), scenes.waves(WAVE, 0, 2)) and task.rate_of(WAVE) == scenes.rate_of(WAVE)
    assert torch.equal(task.hear(task.waves(WAVE, 0, 2), WAVE), task.load(WAVE, 0, 2).x)
    assert not hasattr(_scenes(modality="thermal"), "waves")


def test_the_gallery_of_data_is_the_whole_test_split(tmp_path) -> None:
    task = _folder(write_pairs(tmp_path, splits=("test", "train")))
    assert task.gallery_size == task.size("test") == 6 and set(task.load_gallery(IMAGE, 0, 99).y.tolist()) == {0, 1}
    assert task.load(THERMAL, 0, 9).ids == task.load_gallery(IMAGE, 0, 9).ids
    with pytest.raises(FieldError, match="size is 3; the gallery is the whole test split: leave it out"):
        _ = _folder(tmp_path, size=3).gallery_size


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"gallery": "thermal"}, FieldError, "gallery is thermal, the sensor of the queries"),
        ({"size": 0}, FieldError, "size is 0; scenes has any number of scenes: give 2 or more"),
        ({"at": 5}, FieldError, "at is 5; it is for match: scene"),
        ({"at": 2}, FieldError, "at is 2; it must be one of 1, 5, 10"),
        ({"match": "thing"}, FieldError, "match is 'thing'; it must be one of class, scene"),
        ({"of": "scene"}, UnknownName, "no task named 'scene'; did you mean 'scenes'"),
        ({"of": "thermal-world"}, FieldError, "has no field 'modality'"),
        ({"domian": "web"}, FieldError, "has no field 'domian'; did you mean 'domain'"),
        ({"gallery": "depth"}, FieldError, "modality is 'depth'"),
    ],
)
def test_wrong_fields_are_named(fields, error, message) -> None:
    with pytest.raises(error, match=message):
        _scenes(**fields)


def test_an_unreadable_item_is_named(tmp_path) -> None:
    (write_pairs(tmp_path) / "image" / "test3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"can't read the image .*image/test3.png"):
        _folder(tmp_path).load_gallery(IMAGE, 0, 9)


def test_a_gallery_that_lacks_items_is_refused(tmp_path, monkeypatch) -> None:
    task = _folder(write_pairs(tmp_path))
    whole = task.gallery.load
    monkeypatch.setattr(type(task.gallery), "load", lambda self, box, start, stop, split="test": whole(box, start, 4))
    with pytest.raises(DataError, match="image has 4 of items 0 to 5; a gallery has to be complete"):
        task.load_gallery(IMAGE, 0, 9)


def test_other_items_at_the_same_places_are_refused(tmp_path) -> None:
    task = _folder(write_pairs(tmp_path))
    first = task.load_gallery(IMAGE, 0, 9).ids[0]
    task._found[0] = "another", 0
    with pytest.raises(DataError, match=f"paired-folder: at place 0, thermal and image have '{first}' and 'another'"):
        task.load(THERMAL, 0, 9)
    task._found[0] = first, 1
    with pytest.raises(DataError, match=f"at place 0, thermal and image have classes 0 and 1 of '{first}'"):
        task.load(THERMAL, 0, 9)


def test_a_suite_with_a_wrong_gallery_names_its_line(tmp_path) -> None:
    text = (
        "suite: mine\nversion: 1\nsummary: s\nmodality: thermal\ntask:\n  name: cross-modal\n  of: scenes\n"
        "  modality: thermal\n  gallery: thermal\n  size: 9\nperturbations: [clean]\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RLBenchError, match=r"mine.yaml:\d+: gallery: gallery is thermal"):
        load_suites(tmp_path / "mine.yaml")


def test_the_bundled_suite_has_every_pair_of_sensors() -> None:
    suites = load_suites("scenes-retrieval")
    pairs = {(suite.modality, suite.task.medium) for suite in suites}  # type: ignore[attr-defined]
    assert len(suites) == len(pairs) == 12 and all(suite.examples <= suite.task.size("test") for suite in suites)
