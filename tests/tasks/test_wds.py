"""Webdatasets: made shards of every member type are read bit for bit, and every bad input is one line."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wds_shards import FORMATS, LOSSLESS, draw, encode, isolate, key, samples, write_set, write_tar

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.encoders.heads import prompts

RGB = Box(shape=(3, 32, 32))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def _task(root: Path, **fields):
    return registry.make("task", "wds", {"root": str(root), **fields})


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_suffix_is_read(tmp_path, suffix) -> None:
    task = _task(write_set(tmp_path / "mine", samples([k % 2 for k in range(7)], suffix)))
    examples = task.load(RGB, 0, 7)
    numbers = [int(name[1:]) for name in examples.ids]
    assert sorted(numbers) == list(range(7)) and examples.y.tolist() == [k % 2 for k in numbers]
    expected = np.stack([draw(k).transpose(2, 0, 1) for k in numbers]).astype(np.float32) / 255
    exact = suffix.rpartition(".")[2] in LOSSLESS or suffix == "ppm"
    if exact:
        np.testing.assert_array_equal(examples.x.numpy(), expected)
    else:
        assert abs(examples.x.numpy() - expected).mean() < 0.25
    assert examples.sources == examples.ids and task.notes() == ()


def test_a_picture_is_upright_and_of_8_bits(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 270 degrees
    pixels = draw(0, (20, 32))
    turned = encode(pixels, "png", exif=exif.tobytes())
    grey = encode(np.zeros((32, 32), np.uint8))
    root = write_set(tmp_path / "mine", [[("a.png", turned), ("a.cls", b"0")], [("b.png", grey), ("b.cls", b" 1\n")]])
    task = _task(root)
    found = dict(zip((examples := task.load(Box(shape=(3, 32, 20)), 0, 2)).ids, examples.x, strict=True))
    np.testing.assert_array_equal(found["a"].numpy() * 255, np.rot90(pixels, -1).transpose(2, 0, 1))
    wide = encode(np.zeros((32, 32), np.uint16))
    write_tar(root / "test" / "1.tar", [("b.png", wide), ("b.cls", b"1")])
    with pytest.raises(DataError, match=r"1\.tar: b\.png has more than 8 bits a pixel"):
        _task(root).load(RGB, 0, 2)


def test_blank_names_stay_the_names_of_their_classes(tmp_path) -> None:
    names = ["near", "", " far away ", "a {c}"]
    task = _task(write_set(tmp_path / "mine", samples([0, 1, 2, 3]), classes=names, templates=["a {c}.", "{c}, {c}"]))
    assert [one.name for one in task.classes] == ["near", "", "far away", "a {c}"]
    assert [one.label for one in task.classes] == ["0", "1", "2", "3"]
    assert task.templates == ("a {}.", "{}, {}")
    assert prompts(task.classes[1].name, task.templates) == ["a .", ", "]
    assert prompts(task.classes[0].name, task.templates) == ["a near.", "near, near"]
    (task.folder / "classnames.txt").write_text("one\n\n\n")  # the last newline only ends the last line
    assert [one.name for one in _task(task.folder).classes] == ["one", "", ""]
    (task.folder / "classnames.txt").write_bytes(b"one\r\n\r\ntwo")
    assert [one.name for one in _task(task.folder).classes] == ["one", "", "two"]


def test_the_order_is_the_hash_of_seed_and_key(tmp_path) -> None:
    labels = [0] * 30 + [1] * 10
    task = _task(write_set(tmp_path / "mine", samples(labels)))
    names = task.load(RGB, 0, 40).ids
    assert list(names) == sorted(names, key=lambda name: hashlib.blake2b(f"0 {name}".encode()).digest())
    assert names[:5] == task.load(RGB, 0, 5).ids and names[5:] == task.load(RGB, 5, 99).ids
    other = _task(task.folder, shuffle=1)
    assert other.load(RGB, 0, 40).ids != names and set(other.load(RGB, 0, 40).ids) == set(names)
    assert other.fingerprint() != task.fingerprint()


def test_shards_change_neither_order_nor_fingerprint(tmp_path) -> None:
    found = samples([k % 2 for k in range(9)])
    tasks = [_task(write_set(tmp_path / f"{n}", found, shards=n)) for n in (1, 3)]
    tasks.append(_task(write_set(tmp_path / "backwards", found[::-1], shards=2)))
    one, *others = [task.load(RGB, 0, 9) for task in tasks]
    assert all(torch.equal(other.x, one.x) and other.ids == one.ids for other in others)
    assert len({task.fingerprint() for task in tasks}) == 1
    assert _task(tmp_path / "1", dataset="own").fingerprint() == tasks[0].fingerprint()


def test_the_fingerprint_covers_bytes_labels_keys_and_names(tmp_path) -> None:
    found = samples([0, 1, 0])
    seen = {_task(write_set(tmp_path / "0", found)).fingerprint()}
    changed = [*found[:2], [(found[2][0][0], encode(draw(9))), found[2][1]]]
    relabelled = [*found[:2], [found[2][0], ("s0000002.cls", b"1")]]
    renamed = [*found[:2], [("s9.png", found[2][0][1]), ("s9.cls", b"0")]]
    for k, other in enumerate((changed, relabelled, renamed), 1):
        seen.add(_task(write_set(tmp_path / str(k), other)).fingerprint())
    seen.add(_task(write_set(tmp_path / "4", found, classes=["dog", "cat"])).fingerprint())
    assert len(seen) == 5


def test_two_splits_may_have_the_same_keys(tmp_path) -> None:
    root = write_set(tmp_path / "mine", samples([0, 1]))
    write_set(root, samples([1, 0, 1], size=40), split="train", shards=1)
    task = _task(root)
    assert (task.size("test"), task.size("train"), task.size("val")) == (2, 3, 0)
    train, test = task.load(RGB, 0, 9, "train"), task.load(RGB, 0, 9)
    assert not set(train.ids) & set(test.ids) and train.x.shape[0] == 3 and test.ids[0] in (key(0), key(1))


def test_other_members_are_left_out_and_said(tmp_path) -> None:
    found = [[*files, (f"{key(k)}.json", b"{}")] for k, files in enumerate(samples([0, 1, 0]))]
    assert _task(write_set(tmp_path / "mine", found)).notes() == (
        f"{tmp_path / 'mine'}: 3 files are left out: 3 .json",
    )


def test_pictures_of_native_size(tmp_path) -> None:
    task = _task(write_set(tmp_path / "mine", samples([0, 1], size=32)), resolution=32)
    assert task.load(RGB, 0, 2).x.shape == (2, 3, 32, 32)
    root = write_set(tmp_path / "odd", samples([0, 1], size=40))
    with pytest.raises(DataError, match=r"tar: s000000\d\.png is 40 x 40; resolution is 32, that of all"):
        _task(root, resolution=32).load(RGB, 0, 2)


def _captions(*texts: str):
    return [[(f"{key(k)}.jpg", encode(draw(k), "jpg")), (f"{key(k)}.txt", t.encode())] for k, t in enumerate(texts)]


def test_captions(tmp_path) -> None:
    found = _captions("a dog\na hound\n", "two lines\\nof one", "ein Hund ü\n\n")
    root = write_set(tmp_path / "mine", found, texts={"dataset_type.txt": "retrieval\n"})
    (root / "classnames.txt").unlink()
    task = _task(root, at=1)
    assert set(task.captions) == {("a dog", "a hound"), ("two lines\nof one",), ("ein Hund ü",)}
    examples = task.load(RGB, 0, 3)
    by_id = {name: task.captions[y] for name, y in zip(examples.ids, examples.y.tolist(), strict=True)}
    assert by_id[key(1)] == ("two lines\nof one",) and task.templates == ("{}",)
    assert task.form == "/mine" and _task(root, at=5).form == "/mine(R@5)"
    changed = write_set(tmp_path / "other", _captions("a dog", "a cat", "b"), texts={"dataset_type.txt": "retrieval"})
    assert _task(changed).fingerprint() != task.fingerprint()
    with pytest.raises(FieldError, match="resolution is for sets with classes"):
        _task(root, resolution=32)
    write_set(root, _captions("a", " \n"), texts={"dataset_type.txt": "retrieval"}, shards=1)
    (root / "test" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"0\.tar: s0000001\.txt has no captions; it must have one a line"):
        _task(root).size("test")


def test_multilabel_is_refused_with_the_reason(tmp_path) -> None:
    root = write_set(tmp_path / "mine", samples([0, 1]), texts={"dataset_type.txt": "multilabel\n"})
    with pytest.raises(
        DataError, match="multilabel: a picture has several classes, so that the accuracy of one answer"
    ):
        _task(root).size("test")
    with pytest.raises(DataError, match="multilabel: a picture has several classes"):
        registry.make("task", "wds", {"dataset": "voc2007_multilabel", "root": str(root)}).size("test")


def _members(*files):
    return lambda root: write_tar(root / "test" / "0.tar", files)


def _text(name: str, text: str | bytes):
    return lambda root: (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


PICTURE = encode(draw(0))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_members(("s1.png", PICTURE)), r"0\.tar: s1\.png has no label; there must be s1\.cls"),
        (_members(("s1.cls", b"0")), r"0\.tar: s1\.cls has no picture, such as s1\.webp"),
        (_members(("s1.png", PICTURE), ("s1.npy", b"\x93NUMPY")), r"0\.tar: s1\.png has no label"),
        (_members(("s1.png", PICTURE), ("s1.jpg", PICTURE), ("s1.cls", b"0")), r"0\.tar: s1 has two pictures, s1\.png"),
        (_members(("s1.png", PICTURE), ("s1.cls", b"2")), r"0\.tar: s1\.cls is '2'; .* number of a class, 0 to 1"),
        (_members(("s1.png", PICTURE), ("s1.cls", b"-1")), r"0\.tar: s1\.cls is '-1'; .* 0 to 1"),
        (_members(("s1.png", PICTURE), ("s1.cls", b"cat")), r"0\.tar: s1\.cls is 'cat'; .* 0 to 1"),
        (_members(("s1.png", PICTURE), ("s1.cls", b"1.0")), r"0\.tar: s1\.cls is '1\.0'; .* 0 to 1"),
        (_members(("s1.png", PICTURE), ("s1.cls", "\u0661".encode())), r"0\.tar: s1\.cls is .*; .* 0 to 1"),
        (_members(("s1.png", PICTURE), ("s1.cls", b"")), r"0\.tar: s1\.cls is ''; .* 0 to 1"),
        (_members(("../s1.png", PICTURE), ("../s1.cls", b"0")), r"0\.tar: the member '\.\./s1\.png' leaves the folder"),
        (_members(*samples([0, 1, 0, 1])[3]), r"'s0000003' exists twice, as test/0\.tar and test/1\.tar; remove one"),
        (_text("test/0.tar", b"junk" * 400), r"can't read .*0\.tar as an uncompressed tar"),
        (_text("test/nshards.txt", "3"), r"2\.tar is missing: .*nshards\.txt counts 3 shards, and 1 are not there"),
        (_text("test/nshards.txt", "1"), r"1\.tar is one too many: .*nshards\.txt counts 1 shards"),
        (_text("test/nshards.txt", "0"), r"nshards\.txt is '0'; it must be the number of shards"),
        (_text("test/nshards.txt", "two"), r"nshards\.txt is 'two'; it must be the number of shards"),
        (_text("test/nshards.txt", "9" * 12), r"it must be the number of shards, 1 to 100,000"),
        (lambda root: (root / "test" / "nshards.txt").unlink(), r"can't read .*nshards\.txt: No such file"),
        (_text("dataset_type.txt", "video"), r"dataset_type\.txt is 'video'; it must be classification, retrieval or"),
        (_text("classnames.txt", "one"), r"classnames\.txt has 1 class; there must be two or more"),
        (_text("classnames.txt", b"one\n\xff\n"), r"classnames\.txt:2: the byte 0xff is not UTF-8"),
        (_text("classnames.txt", "one\n\x1b[2J\n"), r"classnames\.txt:2: a control character"),
        (lambda root: (root / "classnames.txt").unlink(), r"can't read .*classnames\.txt: No such file"),
    ],
)
def test_bad_input_is_one_line(tmp_path, damage, said) -> None:
    root = write_set(tmp_path / "mine", samples([0, 1, 0, 1]))
    damage(root)
    with pytest.raises(DataError, match=said) as caught:
        _task(root).size("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a photo.\n", "a {c} {}.\n", "a {c} {0}\n", "{c} }\n", ""])
def test_templates_that_are_not(tmp_path, text) -> None:
    root = write_set(tmp_path / "mine", samples([0, 1]))
    (root / "zeroshot_classification_templates.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"templates\.txt: '.*' must contain \{c\}, the class name, and no other braces"
    ):
        _ = _task(root).templates


def test_a_damaged_picture_names_tar_and_member(tmp_path) -> None:
    root = write_set(tmp_path / "mine", [[("s1.png", PICTURE[:90]), ("s1.cls", b"0")]], shards=1)
    with pytest.raises(DataError, match=r"can't read the image .*0\.tar: s1\.png"):
        _task(root).load(RGB, 0, 1)
    huge = encode(np.zeros((11_000, 11_000), np.uint8))
    write_tar(root / "test" / "0.tar", [("s1.png", huge), ("s1.cls", b"0")])
    with pytest.raises(DataError, match=r"0\.tar: s1\.png has 11000 x 11000 pixels; a picture has at most"):
        _task(root).load(RGB, 0, 1)


def test_a_tar_that_is_replaced_during_a_run(tmp_path) -> None:
    task = _task(write_set(tmp_path / "mine", samples([0, 1]), shards=1))
    assert task.size("test") == 2
    write_set(tmp_path / "mine", samples([0, 1], suffix="webp"), shards=1)
    with pytest.raises(DataError, match="has changed since the tar was indexed"):
        task.load(RGB, 0, 2)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({}, FieldError, "give dataset, the name of a published set such as vtab/pets, or root"),
        ({"dataset": "vtab/pet"}, UnknownName, "no webdataset named 'vtab/pet'; did you mean 'vtab/pets'"),
        ({"root": "nowhere"}, DataError, "there is no folder nowhere; a webdataset contains classnames.txt"),
        ({"dataset": "cars", "resolution": -1}, FieldError, "resolution is -1; it must be 1 to 4096"),
        ({"dataset": "cars", "logit_scale": 0.0}, FieldError, "logit_scale is 0.0; it must be positive"),
        ({"dataset": "cars", "at": 5}, FieldError, "at is 5; it is for sets with captions"),
    ],
)
def test_fields_that_are_wrong(fields, error, said) -> None:
    with pytest.raises(error, match=said):
        registry.make("task", "wds", fields)
