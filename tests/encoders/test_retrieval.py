"""Retrieval: ranks and recalls by hand and by brute force, galleries of several captions, and the tasks' trees."""

import csv
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from rlbench.core import Box, registry
from rlbench.core.errors import DataError
from rlbench.core.stats.metrics import ranks, recall_at
from rlbench.encoders.retrieval import Paired, score_classes
from rlbench.engine.block.gallery import Gallery

GREY, CLIP = Box(shape=(1, 16, 16)), Box(shape=(3, 4, 16, 16))
MEL = Box(shape=(1, 32, 32), unit="log-mel")


def test_ranks_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.7], [0.1, 0.1, 0.0], [0.2, 0.4, np.nan], [np.nan, 0.1, 0.2], [0.3, 0.2, 0.1]])
    own = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1]], dtype=bool)
    places = ranks(scores, own)
    assert places.tolist() == [2, 2, 3, 3, 2]  # a tie and a NaN are errors; the better of two own captions counts
    assert [recall_at(places, k) for k in (1, 2, 3)] == [0, 0.6, 1]


def test_both_directions_by_brute_force() -> None:
    g = np.random.default_rng(0)
    anchors, features = g.normal(size=(12, 5)), g.normal(size=(6, 5))
    owners, labels = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 4, 5]), np.array([0, 1, 2, 3, 3, 4])
    found = Gallery(anchors.astype(np.float32), owners).recalls(features.astype(np.float32), labels)
    scores = features.astype(np.float32).astype(float) @ anchors.astype(np.float32).astype(float).T
    to_text, to_media = [], []
    for i, label in enumerate(labels):
        sets = [scores[i, owners == k].max() for k in range(6)]
        to_text.append(1 + sum(one > sets[label] for one in sets))
    for t, owner in enumerate(owners):
        if owner in labels:  # class 5 has no medium among those that were evaluated
            order = labels[np.argsort(-scores[:, t])]
            to_media.append(1 + int(np.argmax(order == owner)))
    for name, places in (("x-to-text", to_text), ("text-to-x", to_media)):
        for k in (1, 5, 10):
            assert found[f"{name} R@{k}"] == pytest.approx(np.mean([place <= k for place in places]), abs=1e-6)
        assert found[f"{name} median rank"] == np.median(places)
    assert len(to_media) == 11


def test_a_class_scores_as_its_best_caption() -> None:
    owners = torch.tensor([0, 0, 1, 2, 2, 2])
    scores = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = torch.stack([scores[:, :2].amax(1), scores[:, 2], scores[:, 3:].amax(1)], 1)
    assert torch.equal(score_classes(scores, owners), expected)
    assert torch.autograd.gradcheck(lambda s: score_classes(s, owners), (scores,))
    assert torch.equal(score_classes(scores[:, :3], torch.arange(3)), scores[:, :3])


def _film(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), value, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _msrvtt(root: Path) -> None:
    rows = [f"ret{k},msr{7000 + k},video{7000 + k},a man says {k}" for k in range(3)]
    (root / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(["key,vid_key,video_id,sentence", *rows]) + "\n")
    for k in range(3):
        _film(root / "MSRVTT_Videos" / f"video{7000 + k}.mp4", 60 * k + 60)


def _msvd(root: Path) -> None:
    stems = ["abc_1_10", "abc_11_20", "x_y_3_9"]
    (root / "test_list.txt").write_text("\n".join(stems) + "\n")
    captions = {stem: [["a", "cat", str(k)], ["an", "animal", str(k)]] for k, stem in enumerate(stems)}
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol=2))
    for k, stem in enumerate(stems):
        _film(root / "MSVD_Videos" / f"{stem}.avi", 60 * k + 60)


def _sound(path: Path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 300 * (k + 1) * np.arange(8000) / 8000), 8000)


def _clotho(root: Path) -> None:
    rows = [["file_name", *(f"caption_{n}" for n in range(1, 6))]]
    for k in range(3):
        rows.append([f"Sound, {k}.wav", *(f"caption {n}, of {k}." for n in range(5))])
        _sound(root / "evaluation" / f"Sound, {k}.wav", k)
    with (root / "clotho_captions_evaluation.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _audiocaps(root: Path) -> None:
    rows = [f"{5 * k + n},id{k},{10 * k},caption {n} of {k}" for n in range(5) for k in range(4)]
    (root / "test.csv").write_text("\n".join(["audiocap_id,youtube_id,start_time,caption", *rows]) + "\n")
    for k, name in enumerate(("id0_0.wav", "Yid1.wav", "id2.flac")):  # id3 is no longer available
        _sound(root / "test" / name, k)


@pytest.mark.parametrize(
    ("name", "made", "box", "captions", "sources"),
    [
        ("msrvtt", _msrvtt, CLIP, 1, 3),
        ("msvd", _msvd, CLIP, 2, 2),
        ("clotho", _clotho, MEL, 5, 3),
        ("audiocaps", _audiocaps, MEL, 5, 3),
    ],
)
def test_a_gallery(tmp_path, name, made: Callable[[Path], None], box, captions, sources) -> None:
    made(tmp_path)
    task = registry.make("task", name, {"root": str(tmp_path)})
    assert isinstance(task, Paired) and task.size("test") == 3 and task.size("train") == 0
    assert [len(one) for one in task.captions] == [captions] * 3 and len(set(task.captions)) == 3
    examples = task.load(box, 0, 9)
    assert examples.y.tolist() == [0, 1, 2] and len(set(examples.sources)) == sources
    loudness = examples.x.flatten(1).mean(1)
    for item, label, one in zip(task.items(), task.classes, task.captions, strict=True):
        assert label.name == one[0] and item.label == label.label == item.id
        assert [caption.split()[-1].strip(".") for caption in one] == [_number(item.id)] * captions
    assert len({round(float(value), 3) for value in loudness}) == 3
    again = registry.make("task", name, {"root": str(tmp_path)})
    assert again.fingerprint() == task.fingerprint() and again.load(box, 1, 2).ids == examples.ids[1:2]


def _number(stem: str) -> str:
    """The number of a medium, from 0."""
    order = {"abc_1_10": "0", "abc_11_20": "1", "x_y_3_9": "2", "id0_0": "0", "id1_10": "1", "id2_20": "2"}
    return order.get(stem, stem[-1])


def test_captions_are_part_of_the_fingerprint(tmp_path) -> None:
    _msrvtt(tmp_path)
    before = registry.make("task", "msrvtt", {"root": str(tmp_path)}).fingerprint()
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text(path.read_text().replace("says 1", "sings 1"))
    assert registry.make("task", "msrvtt", {"root": str(tmp_path)}).fingerprint() != before


def test_media_that_are_missing(tmp_path) -> None:
    _msrvtt(tmp_path)
    (tmp_path / "MSRVTT_Videos" / "video7001.mp4").unlink()
    with pytest.raises(DataError, match="lacks 1 of 3 media, such as video7001"):
        registry.make("task", "msrvtt", {"root": str(tmp_path)}).size("test")


class _Call:
    def __reduce__(self):
        return print, ("this was run",)


def test_captions_that_are_code_are_refused(tmp_path, capsys) -> None:
    _msvd(tmp_path)
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"abc_1_10": _Call()}))
    with pytest.raises(DataError, match=r"raw-captions.pkl: it asks for builtins.print, which this file does not need"):
        registry.make("task", "msvd", {"root": str(tmp_path)}).size("test")
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"abc_1_10": 3}))
    with pytest.raises(DataError, match=r"has no captions of .* as lists of words"):
        registry.make("task", "msvd", {"root": str(tmp_path)}).size("test")
    assert capsys.readouterr().out == ""


def _folder(root: Path, lines: list[str]):
    for name in "abc":
        Image.new("L", (20, 20), 60 * "abc".index(name)).save(root / f"{name}.png")
    (root / "labels.csv").write_text("\n".join(["path,split,source,caption", *lines]) + "\n")
    return registry.make("task", "captioned-folder", {"data": str(root), "modality": "thermal"})


def test_a_captioned_folder_with_equal_captions_of_two_media(tmp_path) -> None:
    lines = ["a.png,test,s,a cat", "b.png,test,s,a dog", "b.png,test,s,an animal", "c.png,test,t,a cat"]
    task = _folder(tmp_path, [*lines, "a.png,train,s,not this"])
    assert sorted(task.captions) == [("a cat",), ("a dog", "an animal")] and task.size("test") == 3
    examples = task.load(GREY, 0, 9)
    same = {name: y for name, y in zip(examples.ids, examples.y.tolist(), strict=True)}
    assert same["a.png"] == same["c.png"] != same["b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,test,s,a cat"], "has 1 media with captions; there must be two or more"),
        (["a.png,test,s,"], r"labels.csv:2: no 'caption'"),
        (["a.png,test,s,one", "d.png,test,s,two"], r"labels.csv:3: there is no file d.png"),
    ],
)
def test_mistakes_in_a_captioned_folder(tmp_path, lines, message) -> None:
    with pytest.raises(DataError, match=message):
        _folder(tmp_path, lines).size("test")


@pytest.mark.parametrize(
    ("pack", "box", "count"), [("thermal_uav_scenes", GREY, 80), ("video_captioned_scenes", CLIP, 30)]
)
def test_real_captions(pack, box, count) -> None:
    root = Path(os.environ.get("RLBENCH_DATA") or Path(__file__).parents[3] / "shared" / "data") / pack
    if not root.is_dir():
        pytest.skip(f"no {pack}")
    task = registry.make("task", "captioned-folder", {"data": str(root), "modality": pack.split("_")[0]})
    examples = task.load(box, 0, 5)
    assert task.size("test") == count and len(task.captions) <= count and examples.x.flatten(1).std(1).min() > 0.01
