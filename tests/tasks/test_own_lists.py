"""labels.csv of folders: splits, paths and labels in any spelling; captions of one medium."""

from pathlib import Path

import pytest
from PIL import Image

from rlbench.core import registry
from rlbench.core.errors import DataError

ROWS = [f"{k}.png,{'ab'[k % 2]},test,s{k}" for k in range(4)]


@pytest.fixture
def root(tmp_path) -> Path:
    for k in range(4):
        Image.new("L", (8, 8), 40 * k).save(tmp_path / f"{k}.png")
    (tmp_path / "classes.csv").write_text("label,name\na,dog\nb,cat\n")
    (tmp_path / "prompts.txt").write_text("a {}.\n")
    return tmp_path


def _task(root: Path, rows: list[str], kind: str = "folder", head: str = "path,label,split,source"):
    (root / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
    return registry.make("task", kind, {"data": str(root), "modality": "image"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("./0.png,a,train,x", r"labels.csv:6: './0.png' is the same file as '0.png' in line 2"),
        ("0.png,a,train,x", r"labels.csv:6: '0.png' appears twice"),
        ("/4.png,a,train,x", r"labels.csv:6: '/4.png' is absolute; paths must be relative to"),
        ("0.png/../0.png,a,train,x", r"labels.csv:6: '0.png/../0.png' is the same file"),
        ("linked/0.png,a,train,x", r"labels.csv:6: 'linked/0.png' is the same file as '0.png' in line 2"),
        ("4.png,a,tset,x", r"labels.csv:6: the split is 'tset'; it must be train, val or test"),
        ("4.png,a,testing,x", r"labels.csv:6: the splits are 'test' and 'testing', which both mean test"),
        ("sub\\5.png,a,train,x", r"labels.csv names files that are missing .*; write / in paths, not"),
        ("u\u00fc.png,a,train,x", r"labels.csv names files that are missing .* in another form of Unicode: rename it"),
        ("x" * 300 + ".png,a,train,x", r"labels.csv names files that are missing"),
        ("4.png,c,train,x", r"classes has no 'c', the label of 4.png"),
        ("4.png,a", r"labels.csv:6: 2 values for 4 columns"),
    ],
)
def test_a_row_that_is_wrong_in_any_split(root, row, message) -> None:
    (root / "linked").symlink_to(root)
    Image.new("L", (8, 8)).save(root / "4.png")
    (root / "sub").mkdir()
    (root / "sub" / "5.png").touch()
    (root / "uu\u0308.png").touch()
    with pytest.raises(DataError, match=message) as caught:
        _task(root, [*ROWS, row])
    assert "\n" not in str(caught.value)


def test_spellings_that_clearly_mean_a_split_or_a_label(root) -> None:
    (root / "classes.csv").write_text("label,name\n0,dog\n1,cat\n")
    task = _task(root, ["0.png,0.0,Test,s", "1.png,1.0,TEST,s", "2.png,0,Training,s", "3.png,1.0,validation,s"])
    assert [task.size(split) for split in ("train", "val", "test")] == [1, 1, 2]
    assert sorted(row.label for row in task.rows["test"]) == ["0", "1"]


def test_links_to_files_of_the_same_bytes_are_files_of_their_own(root) -> None:
    """As stores by content keep them."""
    for name in ("4.png", "5.png"):
        (root / name).symlink_to("0.png")
    assert _task(root, [*ROWS, "4.png,a,train,x", "5.png,b,train,x"]).size("train") == 2


def test_a_class_without_test_examples_is_a_note(root) -> None:
    (root / "classes.csv").write_text("label,name\na,dog\nb,cat\nc,cow\n")
    assert _task(root, ROWS).notes() == ("1 of 3 classes have no test example: c",)


CAPTIONS = ["0.png,test,s,a cat, red", "1.png,test,s,a dog"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (CAPTIONS, r"labels.csv:2: 5 values for 4 columns"),
        (["0.png,test,s,x", "./0.png,test,s,y", "1.png,test,s,z"], r"labels.csv:3: './0.png' is the same file"),
        (["0.png,test,s,x", "0.png,test,t,y", "1.png,test,s,z"], r"labels.csv:3: the source of '0.png' is 't' here"),
        (["0.png,test,s,x", "1.png,test,s,y", "9.png,test,s,z"], r"labels.csv:4: there is no file 9.png"),
        (["0.png,test,s,x", "1.png,test,s,y", "2.png,dev,s,z"], r"labels.csv:4: the split is 'dev'"),
    ],
)
def test_captions(root, rows, message) -> None:
    with pytest.raises(DataError, match=message):
        _task(root, rows, "captioned-folder", "path,split,source,caption").size("test")


def test_a_gallery_of_one_caption_is_refused(root) -> None:
    rows = ["0.png,test,s,a dog", "1.png,test,t,a dog"]
    with pytest.raises(DataError, match="the same captions for all media"):
        _ = _task(root, rows, "captioned-folder", "path,split,source,caption").classes
