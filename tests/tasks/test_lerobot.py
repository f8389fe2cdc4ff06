"""The task `lerobot`, on data sets of Parquet files and films made here."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot_sets import FRONT, TASKS, WRIST, write_set

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, FieldError

RGB = Box(shape=(3, 32, 32))


def _task(root, **fields):
    return registry.make("task", "lerobot", {"data": str(root), "per_second": 10.0, **fields})


def _frames(task):
    """(episode, frame, label) of every example; checks that its picture is that frame's."""
    examples, found = task.load(RGB, 0, 1000), []
    starts = {0: 0, 1: 20}
    for x, y, name in zip(examples.x, examples.y, examples.ids, strict=True):
        _, episode, frame = name.split(":")
        number, k = int(episode.split()[1]), int(frame.split()[1])
        assert abs(float(x.mean()) * 255 - 5 * (starts[number] + k)) < 2.5, name  # the next frame is 5 levels brighter
        found.append((number, k, task.classes[y].label))
    return sorted(found)


@pytest.mark.parametrize("stored", ["video", "image"])
def test_frames_and_tasks(tmp_path, stored) -> None:
    task = _task(write_set(tmp_path / "a", stored=stored))
    expected = [(0, k, TASKS[0]) for k in range(20)] + [(1, k, TASKS[1]) for k in range(10)]
    assert _frames(task) == expected and task.size("test") == 30 and task.size("val") == 0
    examples = task.load(RGB, 0, 30)
    assert f"{FRONT}:episode 1:frame 3" in examples.ids and set(examples.sources) == {"episode 0", "episode 1"}
    assert torch.equal(task.load(RGB, 4, 9).x, examples.x[4:9])
    assert [one.name for one in task.classes] == sorted(TASKS) and task.notes() == ()
    assert [(n, k) for n, k, _ in _frames(_task(tmp_path / "a", per_second=2.5))] == [
        *((0, k) for k in (0, 4, 8, 12, 16)),
        *((1, k) for k in (0, 4, 8)),
    ]
    assert (
        task.fingerprint() == _task(tmp_path / "a").fingerprint() != _task(tmp_path / "a", per_second=1).fingerprint()
    )


def test_far_frames_are_found_by_seeking(tmp_path) -> None:
    """Frames 3 s apart in a film of 5 s: the second and third are reached by seeking."""
    root = write_set(tmp_path, (50,))
    task = _task(root, per_second=0.4, classes=["pick up the cube", "nothing"])
    examples = task.load(RGB, 0, 10)
    shown = {int(n.split()[-1]): float(x.mean()) * 255 for n, x in zip(examples.ids, examples.x, strict=True)}
    assert sorted(shown) == [0, 25] and all(abs(level - 5 * k) < 2.5 for k, level in shown.items())


def test_subtasks_are_active_from_their_time_on(tmp_path) -> None:
    root = write_set(tmp_path, (20,), subtasks=((0.3, "reach"), (0.9, "grasp")))
    task = _task(root, labels="subtask")
    assert _frames(task) == [(0, k, "reach" if k < 9 else "grasp") for k in range(3, 20)]
    assert task.notes() == ("3 frames without a subtask are left out",)


def test_subtasks_by_index(tmp_path) -> None:
    root = write_set(tmp_path, (20,))
    path = root / "data/chunk-000/file-000.parquet"
    numbers = [-1] * 5 + [0] * 5 + [1] * 10
    pq.write_table(pq.read_table(path).append_column("subtask_index", pa.array(numbers)), path)
    pq.write_table(pa.table({"subtask": ["reach", "grasp"], "subtask_index": [0, 1]}), root / "meta/subtasks.parquet")
    task = _task(root, labels="subtask")
    assert _frames(task) == [(0, k, "reach" if k < 10 else "grasp") for k in range(5, 20)]


def _set_info(root, **values):
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILM = f"videos/{FRONT}/chunk-000/file-000.mp4"


@pytest.mark.parametrize(
    ("edit", "fields", "message"),
    [
        (lambda root: None, {"camera": "front"}, rf"has no camera 'front'; its cameras: {FRONT}, {WRIST}$"),
        (lambda root: None, {}, rf"has 2 cameras; choose one; its cameras: {FRONT}, {WRIST}$"),
        (
            lambda root: None,
            {"camera": FRONT, "labels": "subtask"},
            r"has no subtasks: its frames have no language_pers",
        ),
        (lambda root: (root / "meta/info.json").unlink(), {}, r"has no meta/info.json; a LeRobot data set has meta"),
        (lambda root: _set_info(root, codebase_version="v2.1"), {}, r"the version is 'v2.1'; it must be v3.0"),
        (lambda root: _set_info(root, fps=0), {"camera": FRONT}, r"fps is 0; it must be positive"),
        (
            lambda root: _set_info(root, data_path="../{chunk_index}{file_index}"),
            {"camera": FRONT},
            r"the path '../\{chunk_index\}\{file_index\}' leaves the folder",
        ),
        (lambda root: _cut(root / FILM), {"camera": FRONT}, r"can't read the clip .*file-000.mp4: "),
        (lambda root: (root / FILM).unlink(), {"camera": FRONT}, r"can't read the clip .*file-000.mp4: No such file"),
        (lambda root: _cut(root / "data/chunk-000/file-000.parquet"), {"camera": FRONT}, r"can't read .*file-000.parq"),
        (
            lambda root: (root / "meta/tasks.parquet").unlink(),
            {"camera": FRONT},
            r"can't read .*tasks.parquet: No such",
        ),
        (
            lambda root: (root / "meta/episodes/chunk-000/file-000.parquet").unlink(),
            {"camera": FRONT},
            r"has no meta/episodes/\*/\*.parquet",
        ),
    ],
)
def test_mistakes(tmp_path, edit, fields, message) -> None:
    root = write_set(tmp_path / "a", (6, 4), cameras=(FRONT, WRIST))
    edit(root)
    with pytest.raises(DataError, match=message) as caught:
        _task(root, **fields).load(RGB, 0, 10)
    assert "\n" not in str(caught.value)


def test_a_film_that_is_too_short(tmp_path) -> None:
    root = write_set(tmp_path / "a", (6, 4))
    short = write_set(tmp_path / "b", (3,))
    (root / FILM).write_bytes((short / FILM).read_bytes())
    with pytest.raises(DataError, match=r"file-000.mp4 has no frame at 0\.300 s"):
        _task(root).load(RGB, 0, 10)
    with pytest.raises(FieldError, match="per_second is 0"):
        _task(root, per_second=0)


@pytest.mark.parametrize("column", ["timestamp", "frame_index", "task_index"])
def test_a_row_without_a_value_is_named(tmp_path, column) -> None:
    root = write_set(tmp_path / "a", (6, 4))
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = [None if k == 3 else value for k, value in enumerate(table.column(column).to_pylist())]
    place, field = table.column_names.index(column), table.schema.field(column)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
    with pytest.raises(DataError, match=rf"file-000.parquet has no value of '{column}' in row 3"):
        _task(root).load(RGB, 0, 10)


def test_pictures_that_are_only_paths_are_refused(tmp_path) -> None:
    root = write_set(tmp_path / "a", (6, 4), stored="image")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{**row, "bytes": None, "path": "images/x.png"} for row in table.column(FRONT).to_pylist()]
    pq.write_table(table.set_column(table.column_names.index(FRONT), FRONT, pa.array(rows, kind)), path)
    with pytest.raises(DataError, match=r"has no picture, only its path"):
        _task(root).load(RGB, 0, 1)
