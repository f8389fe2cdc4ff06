"""The index of a tar: what is in it, that it is kept, and every way in which a tar is refused."""

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest
from wds_shards import write_tar

from rlbench.core.errors import DataError
from rlbench.tasks import tar_index
from rlbench.tasks.tar_index import Member, index_tars, read_member

FILES = [("s0000000.webp", b"picture" * 300), ("s0000000.cls", b"7"), ("deep/s0000001.png", b""), ("b.txt", b"a\\nb\n")]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tar_index, "_MEMORY", {})


def test_members_have_their_places_checksums_and_texts(tmp_path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    (index,) = index_tars([path])
    whole = path.read_bytes()
    assert [one.name for one in index] == [name for name, _ in FILES]
    for one, (_, data) in zip(index, FILES, strict=True):
        assert whole[one.offset : one.offset + one.size] == data == read_member(path, one)
        assert one.sha256 == hashlib.sha256(data).hexdigest()
    assert [one.text for one in index] == ["", "7", "", "a\\nb\n"]


def test_an_index_is_made_once_and_again_when_the_tar_changes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tar_index, "is_settled", lambda signature: True)
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    first, scans = index_tars([path]), []
    scan = tar_index._scan
    monkeypatch.setattr(tar_index, "_scan", lambda path: scans.append(path) or scan(path))
    monkeypatch.setattr(tar_index, "_MEMORY", {})  # another process
    assert index_tars([path]) == first and not scans
    for kept in (tmp_path / "cache" / "tars").iterdir():
        kept.write_text("[1, nothing")
    monkeypatch.setattr(tar_index, "_MEMORY", {})
    assert index_tars([path]) == first and len(scans) == 1
    write_tar(path, FILES[:2])
    assert [len(index) for index in index_tars([path])] == [2] and len(scans) == 2


def test_the_cache_keeps_the_newest_indices(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tar_index, "is_settled", lambda signature: True)
    monkeypatch.setattr(tar_index, "_KEPT", 2)
    for k in range(4):
        write_tar(tmp_path / f"{k}.tar", FILES)
        index_tars([tmp_path / f"{k}.tar"])
    assert len(list((tmp_path / "cache" / "tars").iterdir())) == 2


def test_a_tar_that_changed_just_now_is_not_kept(tmp_path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    index_tars([path])
    assert not (tmp_path / "cache").exists() and not tar_index._MEMORY


def test_a_member_that_changed_later_is_not_used(tmp_path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    member = index_tars([path])[0][0]
    data = bytearray(path.read_bytes())
    data[member.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0\.tar: s0000000\.webp has changed since the tar was indexed"):
        read_member(path, member)
    with pytest.raises(DataError, match="has 1,000,000,000 bytes; a member has at most"):
        read_member(path, Member("a", 0, 10**9, ""))


def _info(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../s0000000.png", b"x"), r"0\.tar: the member '\.\./s0000000\.png' leaves the folder"),
        (("a/../../b.png", b"x"), r"leaves the folder"),
        (("/etc/passwd", b"x"), r"the member '/etc/passwd' leaves the folder"),
        (("C:\\a.png", b"x"), r"leaves the folder"),
        ((_info("a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")), r"the member 'a\.png' is a link"),
        ((_info("a.png", type=tarfile.LNKTYPE, linkname="b.png")), r"the member 'a\.png' is a link"),
        ((_info("a.png", type=tarfile.CHRTYPE)), r"'a\.png' is a device"),
        ((_info("a.png", type=tarfile.BLKTYPE)), r"'a\.png' is a device"),
        ((_info("a.png", type=tarfile.FIFOTYPE)), r"'a\.png' is a pipe"),
        ((_info("a.png", type=b"Z")), r"'a\.png' is not a file"),
        (("a\x1b[2Jb.png", b"x"), r"'a\\x1b\[2Jb\.png' has a name with control characters"),
        (("s0000000.cls", b"1" * 70_000), r"s0000000\.cls has 70,000 bytes; a label or caption has at most 65,536"),
        (("s0000000.txt", b"\xff\xfe"), r"0\.tar: s0000000\.txt is not UTF-8"),
        (FILES[0], r"0\.tar: s0000000\.webp appears twice"),
    ],
)
def test_members_that_are_refused(tmp_path, member, said) -> None:
    write_tar(tmp_path / "0.tar", [FILES[0], member])
    with pytest.raises(DataError, match=said) as caught:
        index_tars([tmp_path / "0.tar"])
    assert "\n" not in str(caught.value) and "0.tar" in str(caught.value)


def test_folders_are_skipped_and_long_names_are_read(tmp_path) -> None:
    name = f"{'a' * 150}/{'b' * 120}.png"
    write_tar(tmp_path / "0.tar", [_info("a", type=tarfile.DIRTYPE), (name, b"x"), ("ü.png", b"y")])
    assert [one.name for one in index_tars([tmp_path / "0.tar"])[0]] == [name, "ü.png"]


def _cut(at: int | None):
    return lambda data: data[:at]


def _negative(data: bytes) -> bytes:
    """A size of -512 in the second header, with its checksum made right."""
    start = 512 + 2560
    header = bytearray(data[start : start + 512])
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + 512 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut(0), r"can't read .*0\.tar as an uncompressed tar: empty file"),
        (_cut(300), r"can't read .*0\.tar as an uncompressed tar"),
        (_cut(1000), r"0\.tar is truncated: s0000000\.webp lacks 1,612 of its 2,100 bytes"),
        (_cut(512 + 2560), r"0\.tar is truncated: it ends at byte 3,072 without an end mark"),
        (_cut(512 + 2560 + 100), r"0\.tar is damaged: at byte 3,072 is neither a member nor the end"),
        (_cut(512 + 2100), r"0\.tar is truncated"),
        (lambda data: data[:3072] + b"x" * 512 + data[3584:], r"0\.tar is damaged: at byte 3,072"),
        (lambda data: data + data, r"0\.tar is damaged: at byte .* is neither a member nor the end"),
        (_negative, r"0\.tar is damaged: at byte 3,072|0\.tar is truncated or damaged near byte 3,072"),
        (lambda data: b"<!doctype html>" * 100, r"can't read .*0\.tar as an uncompressed tar"),
        (gzip.compress, r"can't read .*0\.tar as an uncompressed tar"),
    ],
)
def test_a_damaged_tar_is_one_line(tmp_path, damage, said) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        index_tars([path])
    assert "\n" not in str(caught.value)


def test_every_truncation_is_found(tmp_path) -> None:
    write_tar(tmp_path / "0.tar", FILES)
    whole = (tmp_path / "0.tar").read_bytes()
    for size in range(0, 6 * 512 + 2560, 256):
        cut = tmp_path / "cut" / f"{size}.tar"
        cut.parent.mkdir(exist_ok=True)
        cut.write_bytes(whole[:size])
        with pytest.raises(DataError):
            index_tars([cut])


def test_a_file_that_is_missing_or_a_folder(tmp_path) -> None:
    with pytest.raises(DataError, match=r"can't read .*1\.tar: No such file"):
        index_tars([tmp_path / "1.tar"])
    with pytest.raises(DataError, match="it is not a file"):
        index_tars([tmp_path])


def test_an_empty_tar_has_no_members(tmp_path) -> None:
    write_tar(tmp_path / "0.tar", [])
    assert index_tars([tmp_path / "0.tar"]) == [()]
