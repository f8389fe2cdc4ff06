"""The task `rosbag`, on bags written by rosbags: labels at edges of intervals, gaps, encodings, and every mistake."""

import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from bag_folder import GREY, LABELS, STORE, levels_of, make_film, make_level, make_task, write_folder
from bags import START, make_compressed, make_image, make_sound, make_store, make_text, write_bag

from rlbench.core import Box, Label
from rlbench.core.errors import DataError, FieldError

RGB = Box(shape=(3, 8, 8))
WAVE = Box(shape=(1, 800), low=-1.0, high=1.0, unit="waveform")


def test_labels_at_the_edges_of_half_open_intervals(tmp_path) -> None:
    task = make_task(write_folder(tmp_path, make_film()))
    assert levels_of(task) == [(k, "cat" if k < 15 else "big_dog") for k in range(5, 25)]
    assert task.classes == (Label("big_dog", "big dog"), Label("cat", "cat"))
    assert task.templates == ("a photo of {a}.",) and task.modality == "image"
    assert task.notes() == ("10 messages outside of all intervals are left out",)
    examples = task.load(GREY, 0, 20)
    stamp = START + 500_000_000
    assert f"run:/camera@{stamp}" in examples.ids and set(examples.sources) == {"run"}
    assert torch.equal(task.load(GREY, 3, 7).x, examples.x[3:7]) and task.size("train") == 0


def test_an_edge_is_exact_to_the_nanosecond_since_1970(tmp_path) -> None:
    """The second interval starts one ns after message 5; binary fractions of seconds would not tell."""
    message = START + 500_000_000
    first, last, end = (f"{ns // 10**9}.{ns % 10**9:09d}" for ns in (message, message + 1, message + 10**9))
    labels = f"bag,start,end,label\nrun,1700000000,{first},a\nrun,{last},{end},b\n"
    task = make_task(write_folder(tmp_path, make_film(9), labels), clock="epoch")
    assert levels_of(task) == [(k, "a" if k < 5 else "b") for k in (0, 1, 2, 3, 4, 6, 7, 8)]


def test_examples_are_taken_at_the_declared_rate_and_none_in_a_gap(tmp_path) -> None:
    jump = [(k / 10, "/camera", make_level(k)) for k in (*range(12), *range(40, 52))]  # 2.9 s without images
    task = make_task(write_folder(tmp_path, jump, "bag,start,end,label\nrun,0,2.6,a\nrun,4.3,9,b\n"), per_second=2.0)
    assert levels_of(task) == [(0, "a"), (5, "a"), (10, "a"), (43, "b"), (45, "b"), (50, "b")]


@pytest.mark.parametrize("name", ["run", "run.mcap", "run.bag"])
def test_every_kind_of_bag(tmp_path, name) -> None:
    store = make_store(ros1=name.endswith(".bag"))
    messages = [(k / 10, "/camera", make_image(store, np.full((8, 8), k, np.uint8), "mono8")) for k in range(4)]
    write_bag(tmp_path / name, [(0.0, "/note", make_text(store, "x")), *messages], store)
    (tmp_path / "labels.csv").write_text(f"bag,start,end,label\n{name},0,0.2,a\n{name},0.2,1,b\n")
    assert levels_of(make_task(tmp_path)) == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
    if name.endswith(".mcap"):  # the file without its folder
        bare = tmp_path / "bare"
        bare.mkdir()
        next((tmp_path / name).glob("*.mcap")).rename(bare / name)
        (bare / "labels.csv").write_text((tmp_path / "labels.csv").read_text())
        assert levels_of(make_task(bare)) == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]


def test_an_old_bag_that_does_not_hold_its_types(tmp_path) -> None:
    folder = write_folder(tmp_path, _sound_messages(), "bag,start,end,label\nrun,0,1,a\nrun,1,3,b\n")
    with closing(sqlite3.connect(next((folder / "run").glob("*.db3")))) as base, base:
        base.execute("DELETE FROM message_definitions")
    assert make_task(folder, "audio", topic="/audio", rate=8000, seconds=0.1).size("test") == 30


def test_yaml_labels_and_several_bags(tmp_path) -> None:
    write_folder(tmp_path, make_film(4), name="run")
    write_folder(tmp_path, make_film(4), name="other")
    text = "- {bag: run, start: 0.1, end: 0.2, label: a}\n- {bag: other, start: 0.3, end: 1, label: b}\n"
    (tmp_path / "labels.yaml").write_text(text)
    task = make_task(tmp_path, labels="labels.yaml", classes={"a": "an ant", "b": "a bee"})
    assert levels_of(task) == [(1, "a"), (3, "b")]
    assert [one.name for one in task.classes] == ["an ant", "a bee"]
    assert sorted(task.load(GREY, 0, 2).sources) == ["other", "run"]


def test_colours_rows_and_byte_orders(tmp_path) -> None:
    rgb = np.zeros((8, 8, 3), np.uint8) + np.uint8([10, 100, 200])
    rgba = np.concatenate([rgb, np.full((8, 8, 1), 7, np.uint8)], axis=2)
    bgra = rgba[..., [2, 1, 0, 3]]
    images = [
        make_image(STORE, rgb, "rgb8", padding=5),
        make_image(STORE, rgb[..., ::-1], "bgr8"),
        make_image(STORE, rgba, "rgba8"),
        make_image(STORE, bgra, "bgra8", padding=1),
        make_compressed(STORE, rgb, "png"),
    ]
    for k, image in enumerate(images):
        topic = "/c" if hasattr(image, "format") else "/camera"
        folder = tmp_path / str(k)
        task = make_task(
            write_folder(folder, [(0, topic, image)], "bag,start,end,label\nrun,0,1,a\nrun,1,2,b\n"), topic=topic
        )
        x = task.load(RGB, 0, 1).x[0]
        assert torch.allclose((x * 255).round(), torch.tensor([10.0, 100.0, 200.0])[:, None, None].expand(3, 8, 8)), k


@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bits_need_a_range(tmp_path, big) -> None:
    messages = [
        (k / 10, "/camera", make_level(20_000 + 1000 * k, "mono16", big=big, padding=2 * big)) for k in range(8)
    ]
    folder = write_folder(tmp_path, messages, "bag,start,end,label\nrun,0,0.4,a\nrun,0.4,1,b\n")
    with pytest.raises(DataError, match=r"^run:/camera@\d+ has 16 bits; give range, the counts that are shown as"):
        make_task(folder, "thermal").load(GREY, 0, 8)
    task = make_task(folder, "thermal", range=[21_000, 26_000])
    assert [n for n, _ in levels_of(task)] == [0, 0, 51, 102, 153, 204, 255, 255]  # clipped below and above
    assert (
        make_task(folder, "thermal", range=[0, 1]).fingerprint()
        != task.fingerprint()
        == make_task(folder, "thermal", range=[21_000, 26_000]).fingerprint()
    )


def _sound_messages(rate=8000, gap=0.0):
    """Messages of 0.1 s, whose samples count up from 0; `gap` s are missing after the first second."""
    wave = np.arange(3 * rate) % 30_000
    return [
        (k / 10 + gap * (k >= 10), "/audio", make_sound(STORE, wave[k * rate // 10 : (k + 1) * rate // 10]))
        for k in range(30)
    ]


def test_sound(tmp_path) -> None:
    folder = write_folder(tmp_path, _sound_messages(), "bag,start,end,label\nrun,0,1.05,a\nrun,1.05,3,b\n")
    task = make_task(folder, "audio", topic="/audio", rate=8000, seconds=0.1)
    examples = task.load(WAVE, 0, 100)
    assert task.size("test") == 29 and len(set(examples.ids)) == 29  # the message at 1.0 s reaches over the edge
    row = examples.ids.index(f"run:/audio@{START + 300_000_000}")
    assert torch.equal(examples.x[row, 0] * 32768, torch.arange(2400.0, 3200.0))
    assert task.rate_of(WAVE) == 8000 and torch.equal(task.hear(task.waves(WAVE, 0, 5), WAVE), examples.x[:5])
    assert "1 messages of sound too near to an interval's end are left out" in task.notes()


def test_sound_over_a_gap_is_left_out(tmp_path) -> None:
    folder = write_folder(tmp_path, _sound_messages(gap=5.0), "bag,start,end,label\nrun,0,20,a\nrun,20,21,b\n")
    task = make_task(folder, "audio", topic="/audio", rate=8000, seconds=0.5)
    assert "8 messages of sound before a gap are left out" in task.notes()  # four before the jump, four at the end
    assert task.size("test") == 22


def _cut(folder):
    path = next((folder / "run").glob("*.db3"))
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        ({"topic": "/cam"}, LABELS, r"run has no topic '/cam'; its topics that can be used: /camera$"),
        (
            {"topic": "/note"},
            LABELS,
            r"run: the topic /note is std_msgs/msg/String; it must be sensor_msgs/msg/Image or",
        ),
        (
            {},
            LABELS.replace("1.5,2.5", "1.4,2.5"),
            r"labels.csv:3: the interval of 'big_dog' overlaps that of 'cat' in line 2",
        ),
        ({}, LABELS.replace("1.5,2.5", "2.5,2.5"), r"labels.csv:3: the interval ends at 2.5, not after its start, 2.5"),
        ({}, LABELS.replace("0.5", "noon"), r"labels.csv:2: 'noon' is not a time in seconds, such as 12.5"),
        ({}, LABELS.replace("0.5", "nan"), r"labels.csv:2: no 'start'"),
        ({}, LABELS.replace("0.5", "-1"), r"labels.csv:2: '-1' is not a time in seconds: at least 0"),
        ({}, LABELS.replace("0.5", "0.1234567891"), r"labels.csv:2: '0.1234567891' is not a time .* nine decimals"),
        (
            {},
            LABELS.replace("run", "walk"),
            r"walk does not exist; a bag is a file .bag, .mcap, .db3, or a folder with",
        ),
        ({}, LABELS.replace("run", "labels.csv"), r"labels.csv is not a bag; a bag is"),
        ({}, "bag,start,end,label\n", r"labels.csv has no intervals"),
        ({"labels": "none.csv"}, LABELS, r"there is no .*none.csv; its lines"),
        ({"classes": ["cat", "cow"]}, LABELS, r"has the label 'big_dog', which is not a class"),
    ],
)
def test_mistakes(tmp_path, fields, labels, message) -> None:
    write_folder(tmp_path, [*make_film(), (0, "/note", make_text(STORE, "x"))], labels)
    with pytest.raises(DataError, match=message) as caught:
        make_task(tmp_path, **fields).load(GREY, 0, 1)
    assert "\n" not in str(caught.value)


def test_overlaps_and_keys_in_yaml(tmp_path) -> None:
    write_folder(tmp_path, make_film(3))
    for text, message in (
        (
            "- {bag: run, start: 0, end: 2, label: a}\n- {bag: run, start: 1, end: 3, label: b}",
            r"yaml:2: the interval of",
        ),
        ("- {bag: run, start: 0, end: 2}", r"yaml:1: labels: the key 'label' is missing"),
        ("- {bag: run, start: [0], end: 2, label: a}", r"yaml:1: '' is not a time"),
    ):
        (tmp_path / "labels.yaml").write_text(text)
        with pytest.raises(DataError, match=message):
            make_task(tmp_path, labels="labels.yaml").load(GREY, 0, 1)


def test_unknown_encodings_cut_images_and_bags(tmp_path) -> None:
    labels = "bag,start,end,label\nrun,0,1,a\nrun,1,2,b\n"
    bayer = make_level(3, "bayer_rggb8")
    with pytest.raises(DataError, match=r"run:/camera@\d+ has the encoding 'bayer_rggb8'; allowed: mono8, 8UC1, rgb8"):
        make_task(write_folder(tmp_path / "a", [(0, "/camera", bayer)], labels)).load(GREY, 0, 1)
    short = make_level(3)
    short.data = short.data[:60]
    with pytest.raises(
        DataError, match=r"run:/camera@\d+ is cut: 8 x 8 mono8 pixels in rows of 8 bytes do not fit into"
    ):
        make_task(write_folder(tmp_path / "b", [(0, "/camera", short)], labels)).load(GREY, 0, 1)
    with pytest.raises(DataError, match=r"the bag .*run has no messages"):
        make_task(write_folder(tmp_path / "c", [], labels)).load(GREY, 0, 1)
    _cut(write_folder(tmp_path / "d", make_film(), labels))
    with pytest.raises(DataError, match=r"can't read the bag .*run: "):
        make_task(tmp_path / "d").load(GREY, 0, 1)


def test_without_the_package(tmp_path, monkeypatch) -> None:
    task = make_task(write_folder(tmp_path, make_film(1)))
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(DataError, match=r"^bags need the package rosbags: pip install 'rlbind-bench\[ros\]'$"):
        task.load(GREY, 0, 1)


@pytest.mark.parametrize("suffix", [".bag", ".mcap"])
def test_truncated_files(tmp_path, suffix) -> None:
    store = make_store(ros1=suffix == ".bag")
    messages = [(k / 10, "/camera", make_image(store, np.full((8, 8), k, np.uint8), "mono8")) for k in range(30)]
    path = write_bag(tmp_path / f"run{suffix}", messages, store)
    file = path if path.is_file() else next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "labels.csv").write_text(f"bag,start,end,label\nrun{suffix},0,9,a\nrun{suffix},9,10,b\n")
    with pytest.raises(DataError, match=rf"can't read the bag .*run{suffix}: ") as caught:
        make_task(tmp_path).load(GREY, 0, 100)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "audio"}, "rate is 0, channels 1; give those"),
        ({"range": [2.0, 1.0]}, "range is .*the smaller first"),
        ({"range": [0.0, 255.0], "modality": "audio", "rate": 8000}, "range is .*, and is for images"),
        ({"per_second": 0}, "per_second is 0"),
    ],
)
def test_wrong_fields(tmp_path, fields, message) -> None:
    with pytest.raises(FieldError, match=message):
        make_task(tmp_path, **fields)


@pytest.mark.parametrize("limits", [(0, 255), (2100, 2600), (30000, 40000)])
def test_a_range_beside_the_counts_is_refused_before_a_run(tmp_path, limits) -> None:
    messages = [(k / 10, "/camera", make_level(22_000 + k, "16UC1")) for k in range(30)]
    folder = write_folder(tmp_path, messages)
    assert make_task(folder, range=(21_000, 26_000)).notes()
    with pytest.raises(DataError, match=r"the first 8 examples of /camera lie outside of range"):
        make_task(folder, range=limits).notes()


def test_a_range_for_eight_bits_is_refused(tmp_path) -> None:
    task = make_task(write_folder(tmp_path, make_film()), range=(10, 20))
    for ask in (task.notes, lambda: task.load(GREY, 0, 4)):
        with pytest.raises(DataError, match=r"^run:/camera@\d+ has 8 bits, and range is for 16; leave range out"):
            ask()
