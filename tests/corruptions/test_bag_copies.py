"""`rlbench corrupt` on bags: every kind, with the same connections, times and messages, read back by rosbags."""

from collections import Counter

import numpy as np
import pytest
import torch
from commands import fails

pytest.importorskip("rosbags")
from bags import START, make_compressed, make_image, make_sound, make_store, make_text, write_bag

from rlbench.core import Box, registry
from rlbench.core.media import bags
from rlbench.corruptions import corrupt

FOG = ("--corruption", "fog", "--severity", 3)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
GREY = COLOUR[..., 0]
STORE = make_store()
SOUND = (8000 * np.sin(np.arange(1600) / 5)).astype(np.int16)


def _messages(store):
    """Two messages of each topic, 0.1 s apart."""
    wide = GREY.astype(np.uint16) * 100
    for k in (0, 1):
        yield from (
            (k / 10, "/rgb", make_image(store, COLOUR, "bgr8", padding=4)),
            (k / 10 + 0.01, "/grey", make_image(store, GREY, "mono8")),
            (k / 10 + 0.02, "/wide", make_image(store, wide, "16UC1", big=k == 1, padding=2)),
            (k / 10 + 0.03, "/png", make_compressed(store, COLOUR, "png")),
            (k / 10 + 0.04, "/bayer", make_image(store, GREY, "bayer_rggb8")),
            (k / 10 + 0.05, "/mic", make_sound(store, SOUND[800 * k : 800 * k + 800])),
            (k / 10 + 0.06, "/note", make_text(store, f"note {k}")),
        )


def _read(path):
    """(topic, log time, message, bytes) of every message, and the number by topic and type."""
    with bags.open_bag(path) as reader:
        found = [
            (one.topic, stamp, reader.deserialize(raw, one.msgtype), bytes(raw))
            for one, stamp, raw in reader.messages()
        ]
        return found, Counter((one.topic, one.msgtype) for one in reader.connections for _ in range(one.msgcount))


@pytest.fixture
def bag(tmp_path):
    store = make_store()
    return write_bag(tmp_path / "run.mcap", list(_messages(store)), store)


def _corrupt(pixels, name, topic, severity=3):
    """(H, W, C) uint8, corrupted with the topic's draw."""
    x = torch.from_numpy(np.atleast_3d(pixels).copy()).permute(2, 0, 1)[None] / 255
    return (corrupt(x, name, severity, ids=[topic])[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.mark.parametrize("name", ["run", "run.mcap", "run.bag"])
def test_images_change_and_all_else_stays(call, tmp_path, name) -> None:
    store = make_store(ros1=name.endswith(".bag"))
    bag = write_bag(tmp_path / name, list(_messages(store)), store)
    target = tmp_path / f"out{bag.suffix}"
    result = call("corrupt", bag, target, *FOG)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:7] == [
        "corrupted: 2 messages of /grey",
        "corrupted: 2 messages of /png",
        "corrupted: 2 messages of /rgb",
        "unchanged: 2 messages of /bayer (encoding bayer_rggb8)",
        "unchanged: 2 messages of /wide (16 bits; give --range)",
        "unchanged: 4 messages of other types",
        f"wrote {target}: a bag with fog 3, seed 0",
    ]
    (before, topics), (after, others) = _read(bag), _read(target)
    assert topics == others and [row[:2] for row in before] == [row[:2] for row in after]
    for (topic, _, old, raw), (_, _, new, other) in zip(before, after, strict=True):
        if topic not in ("/rgb", "/grey", "/png"):
            assert raw == other, topic
            continue
        pixels = GREY[..., None] if topic == "/grey" else COLOUR[..., ::-1] if topic == "/rgb" else COLOUR
        assert np.array_equal(bags.decode_picture(new, "").pixels, _corrupt(pixels, "fog", topic)), topic
        assert repr(old.header) == repr(new.header) and new.header.stamp.nanosec == 5
        if topic == "/rgb":
            assert new.step == 148 and new.encoding == "bgr8"
            assert (new.data.reshape(40, 148)[:, 144:] == 99).all()  # what is behind a row stays


def test_sixteen_bits_of_a_thermal_camera(call, bag, tmp_path) -> None:
    options = ("--corruption", "fixed_pattern_noise", "--severity", 3, "--range", 0, 25_500)
    target = tmp_path / f"out{bag.suffix}"
    result = call("corrupt", bag, target, *options, "--only", "/wide", "--only", "/note")
    assert "corrupted: 2 messages of /wide" in result.stdout, result.output
    assert "unchanged: 8 messages of topics that --only leaves out" in result.stdout
    images = [message for topic, _, message, _ in _read(target)[0] if topic == "/wide"]
    expected = _corrupt(GREY, "fixed_pattern_noise", "/wide").astype(int) * 100
    for big, image in enumerate(images):  # one draw for all messages: the pattern is fixed
        assert image.is_bigendian == big and np.array_equal(bags.decode_picture(image, "").pixels, expected)


def test_noise_is_new_in_every_message_and_the_same_in_every_run(call, bag, tmp_path) -> None:
    for name in ("one", "two"):
        call("corrupt", bag, tmp_path / f"{name}{bag.suffix}", "--corruption", "gaussian_noise", "--severity", 3)
    one, two = (_read(tmp_path / f"{name}{bag.suffix}")[0] for name in ("one", "two"))
    assert [row[3] for row in one] == [row[3] for row in two]
    first, second = (bags.decode_picture(message, "").pixels for topic, _, message, _ in one if topic == "/grey")
    assert np.abs(first.astype(int) - second).mean() > 10


@pytest.mark.parametrize("stamped", [False, True])
def test_sound_is_corrupted_as_a_whole(call, tmp_path, stamped) -> None:
    sounds = [make_sound(STORE, SOUND[800 * k : 800 * k + 800], stamped=stamped) for k in (0, 1)]
    rows = [*((k / 10, "/mic", sound) for k, sound in enumerate(sounds)), (1.0, "/note", make_text(STORE, "x"))]
    bag = write_bag(tmp_path / "run.mcap", rows, STORE)
    options = ("--corruption", "white_noise", "--severity", 5)
    target = tmp_path / f"out{bag.suffix}"
    fails(call("corrupt", bag, target, *options), "1 messages of other types", "2 messages of /mic", "give --rate")
    assert "corrupted: 2 messages of /mic" in call("corrupt", bag, target, *options, "--rate", 8000).stdout
    parts = [bags.get_sound(message).data for topic, _, message, _ in _read(target)[0] if topic == "/mic"]
    assert [len(part) for part in parts] == [1600, 1600]
    fails(call("corrupt", bag, "low.mcap", *options, "--rate", 500), "can't corrupt /mic: ", "1000 Hz or more")
    noisy = np.concatenate(parts).view("<i2") / 32768
    clean = torch.from_numpy(SOUND / 32768)[None, None]
    expected = corrupt(clean, "white_noise", 5, ids=["/mic"], low=-1.0, rate=8000)[0, 0].numpy()
    assert np.abs(noisy - expected).max() < 1e-4


def test_a_bare_file_stays_one(call, tmp_path) -> None:
    store = make_store()
    for suffix, folder in ((".mcap", "a.mcap"), (".db3", "a")):
        path = write_bag(tmp_path / folder, list(_messages(store)), store)
        bare = next(path.glob(f"*{suffix}")).rename(tmp_path / f"bare{suffix}")
        target = tmp_path / f"out{suffix}"
        assert call("corrupt", bare, target, *FOG).exit_code == 0
        assert target.is_file() and len(_read(target)[0]) == 14
        assert min(stamp for _, stamp, _, _ in _read(target)[0]) == START


def test_a_folder_of_bags_stays_a_task(call, tmp_path) -> None:
    root = tmp_path / "in"
    for name in ("a.mcap", "b.bag"):
        store = make_store(ros1=name.endswith(".bag"))
        write_bag(root / name, list(_messages(store)), store)
    (root / "labels.csv").write_text("bag,start,end,label\na.mcap,0,1,x\nb.bag,0,1,y\n")
    result = call("corrupt", root, "out", *FOG, "--only", "/grey")
    assert "corrupted: 4 messages of /grey" in result.stdout and "wrote out: a folder" in result.stdout, result.output
    fields, box = {"topic": "/grey", "modality": "image", "per_second": 10.0}, Box(shape=(1, 40, 48))
    clean, foggy = (
        registry.make("task", "rosbag", {"data": str(p), **fields}).load(box, 0, 9) for p in (root, tmp_path / "out")
    )
    assert clean.ids == foggy.ids and len(clean.ids) == 4
    expected = torch.from_numpy(_corrupt(GREY, "fog", "/grey")[..., 0]) / 255
    assert torch.allclose(foggy.x, expected.expand(4, 1, 40, 48), atol=1e-6)


def test_damaged_bags_leave_nothing(call, tmp_path) -> None:
    store = make_store(ros1=True)
    path = write_bag(tmp_path / "run.bag", [*_messages(store)] * 50, store)
    path.write_bytes(path.read_bytes()[:-2000])
    fails(call("corrupt", path, "out.bag", *FOG), "can't read the bag", untouched=tmp_path / "out.bag")
    empty = write_bag(tmp_path / "empty.bag", [], store)
    fails(call("corrupt", empty, "out.bag", *FOG), "empty.bag has no messages", untouched=tmp_path / "out.bag")
    cut = make_image(store, GREY, "mono8")
    cut.data = cut.data[:100]
    short = write_bag(tmp_path / "short.bag", [(0, "/grey", cut)], store)
    fails(call("corrupt", short, "out.bag", *FOG), f"/grey@{START} is cut", untouched=tmp_path / "out.bag")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.bag", "run.bag", "short.bag"]
