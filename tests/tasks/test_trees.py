"""Trees of files: links, loops, suffixes, and files that are left out or occur twice."""

from collections import Counter

import pytest
from PIL import Image

from rlbench.core import registry
from rlbench.core.errors import DataError
from rlbench.tasks.trees import describe_left_out, index_by_stem, list_files


def _touch(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_links_are_followed_and_every_folder_is_read_once(tmp_path) -> None:
    root = tmp_path / "tree"
    _touch(root, "z/1.png", "z/deep/2.PNG")
    _touch(tmp_path, "disk/3.png", "disk/4.Jpg", "one.png")
    (root / "a").symlink_to(root / "z")  # the same folder again: its files are z's
    (root / "b").symlink_to(tmp_path / "disk")
    (root / "z" / "deep" / "up").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "5.png").symlink_to(tmp_path / "one.png")
    left = Counter()
    found = sorted(list_files(root, root, (".png", ".jpg"), left))
    assert found == ["5.png", "b/3.png", "b/4.Jpg", "z/1.png", "z/deep/2.PNG"] and left == {"itself": 1}


def test_a_link_to_all_classes_brings_no_other_class_in(tmp_path) -> None:
    _touch(tmp_path, "test/a/1.png", "test/b/2.png")
    (tmp_path / "test" / "a" / "up").symlink_to(tmp_path / "test")
    (tmp_path / "test" / "a" / "top").symlink_to(tmp_path)
    assert list(list_files(tmp_path, tmp_path / "test" / "a", (".png",))) == ["test/a/1.png"]


def test_what_is_left_out_is_counted_by_suffix(tmp_path) -> None:
    hidden = [".x.png", "._a.png", "Thumbs.db", ".git/y.png", "__MACOSX/z.png", "desktop.ini"]
    _touch(tmp_path, "a.png", "b.HEIC", "c.heic", "d/e.gif", "README", "f.csv", *hidden)
    left = Counter()
    assert list(list_files(tmp_path, tmp_path, (".png",), left)) == ["a.png"]
    assert describe_left_out(left) == ["4 files are left out: 2 .heic, 1 .gif, 1 README"]
    assert describe_left_out({}) == [] and describe_left_out({".gif": 1}) == ["1 file is left out: 1 .gif"]


def test_a_name_that_occurs_twice(tmp_path) -> None:
    _touch(tmp_path, "a/1.mp4", "b/2.mp4")
    assert index_by_stem(tmp_path, tmp_path, (".mp4",)) == {"1": "a/1.mp4", "2": "b/2.mp4"}
    _touch(tmp_path, "b/1.MP4")
    with pytest.raises(DataError, match=r"has 1 twice: a/1.mp4 and b/1.MP4; remove one"):
        index_by_stem(tmp_path, tmp_path, (".mp4",))


def test_a_name_that_can_not_be_printed(tmp_path) -> None:
    _touch(tmp_path, "a\x1b[2J.png")
    with pytest.raises(DataError, match=r"has a file 'a\\x1b\[2J.png'; name it without control characters"):
        list(list_files(tmp_path, tmp_path, (".png",)))


def test_notes_of_a_tree(tmp_path) -> None:
    for label in "ab":
        (tmp_path / "test" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / label / "1.png")
    _touch(tmp_path, "test/a/2.heic", "test/b/3.heic", "test/b/4.gif")
    fields = {"data": str(tmp_path), "classes": ("a", "b", "c"), "templates": ("{}",)}
    assert registry.make("task", "image-folder", fields).notes() == (
        "3 files are left out: 2 .heic, 1 .gif",
        "1 of 3 classes have no test example: c",
    )


def test_notes_of_a_published_set(tmp_path) -> None:
    for label in ("Faces", "airplanes"):
        _touch(tmp_path, f"101_ObjectCategories/{label}/image_0001.jpg", f"101_ObjectCategories/{label}/x.gif")
    left, count, classes = registry.make("task", "caltech101", {"root": str(tmp_path)}).notes()
    assert left == f"{tmp_path}: 2 files are left out: 2 .gif"
    assert count == f"{tmp_path} has 2 test examples; Caltech-101 has 9,144"
    assert classes.startswith("100 of 102 classes have no test example: ")


def test_two_files_of_one_example(tmp_path) -> None:
    _touch(tmp_path, "101_ObjectCategories/Faces/1.jpg", "101_ObjectCategories/Faces/more/1.jpg")
    with pytest.raises(DataError, match=r"'Faces/1.jpg' exists twice, as .*Faces/1.jpg and .*more/1.jpg"):
        registry.make("task", "caltech101", {"root": str(tmp_path)}).size("test")
