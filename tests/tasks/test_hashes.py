"""Fingerprints of data: other bytes are other data, whatever their size and times; cached hashes are verified."""

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from rlbench.core import registry
from rlbench.core.errors import DataError
from rlbench.tasks import hashes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder for this test, used for files of any age and size."""
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "_MEMORY", {})
    monkeypatch.setattr(hashes, "_SETTLED", 0)
    monkeypatch.setattr(hashes, "_SLOW", -1.0)
    return tmp_path / "cache" / "hashes.sqlite"


def _tree(root: Path) -> Path:
    for split, label, value in (("train", "a", 1), ("train", "b", 2), ("test", "a", 3), ("test", "b", 4)):
        (root / split / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(root / split / label / "x.bmp")
    return root


def _fingerprint(root: Path) -> str:
    fields = {"data": str(root), "classes": ("a", "b"), "templates": ("{}",)}
    return registry.make("task", "image-folder", fields).fingerprint()


@pytest.mark.parametrize("file", ["train/a/x.bmp", "test/b/x.bmp"])
def test_a_changed_byte_in_any_split_changes_it_even_with_equal_size_and_time(tmp_path, file, monkeypatch) -> None:
    root = _tree(tmp_path / "tree")
    first, path = _fingerprint(root), root / file
    times, content = path.stat(), bytearray(path.read_bytes())
    os.utime(path)
    assert _fingerprint(root) == first
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _fingerprint(root) != first
    content[-1] ^= 1
    path.write_bytes(content)
    assert _fingerprint(root) == first
    monkeypatch.setattr(hashes, "_MEMORY", {})  # another process
    assert _fingerprint(root) == first


def test_a_task_that_was_made_before_the_change_has_it_too(tmp_path) -> None:
    fields = {"data": str(_tree(tmp_path / "tree")), "classes": ("a", "b"), "templates": ("{}",)}
    task = registry.make("task", "image-folder", fields)
    first = task.fingerprint()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "tree" / "test" / "a" / "x.bmp")
    assert task.fingerprint() != first


def test_hashes_are_the_files_own_and_read_once(tmp_path, monkeypatch, cache) -> None:
    files = [tmp_path / f"{k}" for k in range(3)]
    for k, file in enumerate(files):
        file.write_bytes(bytes([k]) * 1000)
    expected = {file: hashlib.sha256(file.read_bytes()).digest() for file in files}
    assert hashes.hash_files(files) == expected and cache.is_file()
    read = []
    monkeypatch.setattr(hashes, "_hash_file", lambda path: read.append(path) or b"")
    assert hashes.hash_files(files) == expected  # from memory
    monkeypatch.setattr(hashes, "_MEMORY", {})
    assert hashes.hash_files(files) == expected and read == []  # from disk
    files[1].write_bytes(b"new")
    hashes.hash_files(files)
    assert read == [files[1]]


@pytest.mark.parametrize("damage", ["text", "other table", "values", "a folder", "read only"])
def test_an_unusable_cache_only_costs_time(tmp_path, cache, damage, monkeypatch) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").digest()
    cache.parent.mkdir()
    if damage == "text":
        cache.write_text("no data base" * 100)
    elif damage == "a folder":
        cache.mkdir()
    elif damage == "read only":
        monkeypatch.setenv("RLBENCH_CACHE", "/proc/nothing")
    else:
        about = hashes.read_signature(tmp_path / "a")
        columns = "path BLOB UNIQUE, size INT, mtime INT, ctime INT, inode INT, digest BLOB"
        with sqlite3.connect(cache) as base:
            base.execute(f"CREATE TABLE files ({'x INT' if damage == 'other table' else columns})")
            if damage == "values":
                row = (os.fsencode(tmp_path / "a"), *about, "text")
                base.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
        base.close()
    for _ in range(2):
        monkeypatch.setattr(hashes, "_MEMORY", {})
        assert hashes.hash_files([tmp_path / "a"]) == {tmp_path / "a": expected}


def test_a_file_that_was_just_written_is_read_again(tmp_path, monkeypatch, cache) -> None:
    """Two changes within a tick of the clock have one time."""
    monkeypatch.setattr(hashes, "_SETTLED", 10**12)
    (tmp_path / "a").write_bytes(b"abc")
    hashes.hash_files([tmp_path / "a"])
    assert hashes._MEMORY == {}


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match="can't read"):
            hashes.hash_files([path])


def test_recordings_of_one_size(tmp_path) -> None:
    """ESC-50's files all have one size."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(
        "filename,fold,category,src_file\na.wav,1.0,dog,7.0\nb.wav,2.0,rooster,8.0\n"
    )
    seen = set()
    for content in (b"one", b"two"):
        for name in "ab":
            (tmp_path / "audio" / f"{name}.wav").write_bytes(content)
        task = registry.make("task", "esc50", {"root": str(tmp_path)})
        assert [item.source for item in task.items()] == ["freesound-7", "freesound-8"]
        seen.add(task.fingerprint())
    assert len(seen) == 2
