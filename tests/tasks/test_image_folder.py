"""Trees of pictures in ImageNet's layout, made here with every mistake, and the crops that training takes of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlbench.core import Box, Label, registry
from rlbench.core.errors import DataError, FieldError

RGB, GREY = Box(shape=(3, 16, 16)), Box(shape=(1, 16, 16), low=-1.0)
VALUES = {"n01": (200, 40, 40), "n02": (40, 40, 200)}


def tree(root: Path, *, splits: dict[str, int], size: tuple[int, int] = (40, 30)) -> Path:
    """Pictures with one colour per class; the k-th of a class is k levels brighter."""
    for split, number in splits.items():
        for label, (r, g, b) in VALUES.items():
            (root / split / label).mkdir(parents=True)
            for k in range(number):
                Image.new("RGB", size, (r + k, g + k, b + k)).save(root / split / label / f"{label}_{k}.png")
    (root / "classes.csv").write_text("label,name\nn01,red lamp\nn02,blue door\n")
    (root / "prompts.txt").write_text("a photo of {a}.\n{}\n")
    return root


def task_of(root: Path, **fields):
    return registry.make("task", "image-folder", {"data": str(root), **fields})


def test_a_tree(tmp_path) -> None:
    task = task_of(tree(tmp_path, splits={"train": 3, "val": 2, "test": 4}))
    assert task.classes == (Label("n01", "red lamp"), Label("n02", "blue door"))
    assert task.templates == ("a photo of {a}.", "{}") and task.modality == "image"
    assert [task.size(split) for split in ("train", "val", "test")] == [6, 4, 8]
    found = task.load(RGB, 0, 6, "train")
    assert found.x.shape == (6, 3, 16, 16) and found.x.dtype == torch.float32 and found.y.tolist() == [0, 1] * 3
    for x, y, name in zip(found.x, found.y, found.ids, strict=True):
        label, k = f"n0{y + 1}", int(name[-5])
        assert name == f"train/{label}/{label}_{k}.png"
        expected = (torch.tensor(VALUES[label]) + k).view(3, 1, 1).expand(3, 16, 16) / 255
        assert torch.allclose(x, expected)
    assert len(set(found.sources)) == 6
    grey = task.load(GREY, 1, 3, "test")
    assert grey.x.shape == (2, 1, 16, 16) and grey.x.max() < 1 and grey.x.min() > -1


def test_a_prefix_never_changes_and_whole_pictures_are_in_the_same_order(tmp_path) -> None:
    task = task_of(tree(tmp_path, splits={"train": 5, "val": 1, "test": 1}))
    whole = task.load(RGB, 0, 10, "train")
    part = task.load(RGB, 3, 7, "train")
    assert part.ids == whole.ids[3:7] and torch.equal(part.x, whole.x[3:7])
    for i in range(10):
        picture, y = task.picture(i, 3)
        assert picture.shape == (3, 30, 40) and picture.dtype == np.uint8 and y == whole.y[i]
        assert torch.equal(torch.from_numpy(picture[:, 0, 0] / np.float32(255)), whole.x[i, :, 0, 0])
    assert task.picture(0, 1, "test")[0].shape == (1, 30, 40)


@pytest.mark.parametrize("name", ["val", "test"])
def test_without_both_val_and_test_a_share_of_train_is_held_out(tmp_path, name: str) -> None:
    """Test examples are never validation examples."""
    root = tree(tmp_path, splits={"train": 10, name: 2})
    task = task_of(root, holdout=0.2)
    assert [task.size(split) for split in ("train", "val", "test")] == [16, 4, 4]
    ids = {split: set(task.load(RGB, 0, 20, split).ids) for split in ("train", "val", "test")}
    assert not ids["train"] & ids["val"] and len(ids["train"] | ids["val"]) == 20
    assert all(path.startswith(f"{name}/") for path in ids["test"])
    assert task_of(root, holdout=0).size("val") == 0 and task_of(root).size("val") == 1


def test_subfolders_other_suffixes_and_what_is_left_out(tmp_path) -> None:
    root = tree(tmp_path, splits={"test": 1})
    (root / "test" / "n01" / "images").mkdir()
    Image.new("RGB", (20, 20)).save(root / "test" / "n01" / "images" / "deep.JPEG")
    for name in ("notes.txt", ".hidden.png"):
        (root / "test" / "n01" / name).write_text("")
    (root / "test" / ".cache").mkdir()
    task = task_of(root)
    assert task.size("train") == task.size("val") == 0
    assert set(task.load(RGB, 0, 9).ids) == {
        "test/n01/images/deep.JPEG",
        "test/n01/n01_0.png",
        "test/n02/n02_0.png",
    }


def test_classes_by_another_file_a_mapping_or_a_list(tmp_path) -> None:
    root = tree(tmp_path, splits={"test": 1})
    (root / "other.csv").write_text("label,name\nn02,a door\nn01,a lamp\n")
    assert [one.name for one in task_of(root, classes="other.csv").classes] == ["a door", "a lamp"]
    assert task_of(root, classes="other.csv").load(RGB, 0, 2).y.tolist() == [0, 1]
    assert [one.name for one in task_of(root, classes={"n01": "x", "n02": "y"}).classes] == ["x", "y"]
    assert [one.name for one in task_of(root, classes=["n01", "n02"]).classes] == ["n01", "n02"]


def test_the_fingerprint_depends_on_paths_sizes_and_classes(tmp_path) -> None:
    root = tree(tmp_path, splits={"train": 2, "val": 1, "test": 1})
    seen = {task_of(root).fingerprint(), task_of(root).fingerprint()}
    seen.add(task_of(root, classes={"n02": "x", "n01": "y"}).fingerprint())
    Image.new("RGB", (400, 300), (7, 8, 9)).save(root / "test" / "n01" / "n01_0.png")
    seen.add(task_of(root).fingerprint())
    (root / "train" / "n01" / "n01_1.png").rename(root / "train" / "n01" / "n01_9.png")
    seen.add(task_of(root).fingerprint())
    assert len(seen) == 4


def test_mistakes(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        task_of(tmp_path / "nothing")
    root = tree(tmp_path / "a", splits={"train": 1})
    with pytest.raises(DataError, match="neither a folder 'test' nor 'val'"):
        task_of(root)
    (root / "val").mkdir()
    Image.new("RGB", (4, 4)).save(root / "val" / "ILSVRC2012_val_00000001.png")
    with pytest.raises(DataError, match="one folder per class, val/<class>"):
        task_of(root)
    (root / "val" / "n01").mkdir()
    with pytest.raises(DataError, match="n01 has no pictures"):
        task_of(root)
    (root / "val" / "n03").mkdir()
    with pytest.raises(DataError, match="classes has no 'n03'"):
        task_of(root)
    with pytest.raises(FieldError, match="holdout is 1"):
        task_of(root, holdout=1)
    with pytest.raises(FieldError, match="one of image, thermal, depth"):
        task_of(root, modality="audio")
    with pytest.raises(DataError, match=r"there is no .*names.csv"):
        task_of(root, classes="names.csv")
    (root / "names.csv").write_text("wnid,name\nn01,lamp\n")
    with pytest.raises(DataError, match=r"names.csv has no column 'label'; it needs label, name; its first"):
        task_of(root, classes="names.csv")


def test_a_broken_picture_is_named(tmp_path) -> None:
    root = tree(tmp_path, splits={"train": 1, "test": 1})
    (root / "test" / "n01" / "n01_0.png").write_bytes(b"no picture")
    task = task_of(root)
    for read in (lambda: task.load(RGB, 0, 2), lambda: [task.picture(i, 3, "test") for i in range(2)]):
        with pytest.raises(DataError, match=r"can't read the image .*n01_0.png"):
            read()


def test_pictures_beside_the_folders_of_classes_are_said_to_be_left_out(tmp_path) -> None:
    root = tree(tmp_path, splits={"test": 1})
    Image.new("RGB", (8, 8)).save(root / "test" / "loose.png")
    (root / "test" / "notes.txt").touch()
    assert task_of(root).notes() == ("1 file is left out: 1 .png",)


def test_a_layout_without_a_test_folder_lists_the_folders_that_are_there(tmp_path) -> None:
    root = tree(tmp_path, splits={"Testing": 1})
    with pytest.raises(DataError, match=r"neither a folder 'test' nor 'val'.*its folders are Testing: move"):
        task_of(root)
    shutil.rmtree(root / "Testing")
    with pytest.raises(DataError, match=r"with a folder per class in it; it has none$"):
        task_of(root)


def test_a_class_of_sounds_names_the_task_that_reads_them(tmp_path) -> None:
    root = tree(tmp_path, splits={"test": 1})
    for path in (root / "test" / "n01").iterdir():
        path.rename(path.with_suffix(".wav"))
    with pytest.raises(
        DataError, match=r"n01 has no pictures .*; sounds and clips need the task folder, with a labels\.csv"
    ):
        task_of(root)


def test_a_class_in_another_form_of_unicode_is_said(tmp_path) -> None:
    root = tree(tmp_path, splits={"test": 1})
    (root / "test" / "n01").rename(root / "test" / "Ka\u0308se")
    with pytest.raises(DataError, match="in another form of Unicode: rename it"):
        task_of(root, classes=("K\u00e4se", "n02"))
