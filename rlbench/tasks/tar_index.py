"""Indexes tar files, so that any member can be read without extracting the others.

An index has the name, place, size and SHA-256 of every member, and the text of labels and captions. It is made in one
pass over the file, and is kept in memory and in the cache folder (see `hashes`) as long as the tar's size, times and
inode stay the same. Only plain members are allowed: a link, a device, or a name that leaves the folder is an error,
and so is a tar that is truncated or damaged anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from rlbench.core.errors import DataError, quote
from rlbench.core.files import clear, find_cache_folder, place
from rlbench.core.guard import guard
from rlbench.tasks.hashes import Signature, is_settled, read_signature, show_progress

TEXTS = (".cls", ".txt")  # suffixes of members whose text is part of the index
LONGEST = 1 << 16  # bytes of such a text
LARGEST = 1 << 28  # bytes of a member that is read
_VERSION = 1  # raise it when an index gets other contents
_CHUNK = 1 << 20  # bytes
_THREADS = 8
_KEPT = 10_000  # indices in the cache folder
_KINDS = {
    "issym": "a link",
    "islnk": "a link",
    "ischr": "a device",
    "isblk": "a device",
    "isfifo": "a pipe",
    "issparse": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar.

    Attributes:
        name: its path in the tar.
        offset: of its first byte in the tar.
        size: in bytes.
        sha256: of its bytes, hexadecimal.
        text: its contents, if its name ends in one of TEXTS; otherwise empty.
    """

    name: str
    offset: int
    size: int
    sha256: str
    text: str = ""


class _Header(tarfile.TarInfo):
    """A header whose sizes are not negative, with which Python's tarfile may go back and never end (CVE-2025-8194)."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.InvalidHeaderError("a negative size")  # type: ignore[attr-defined]
        return int(super()._block(count))  # type: ignore[misc]


Index = tuple[Member, ...]
_MEMORY: dict[bytes, tuple[Signature, Index]] = {}


def index_tars(paths: Sequence[Path]) -> list[Index]:
    """Lists the members of each tar, in the order of the tar.

    Raises: DataError, naming the tar and the member at fault.
    """
    start = time.monotonic()
    found = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, index in enumerate(pool.map(_index_tar, paths), 1):
            found.append(index)
            show_progress(f"indexing tars: {done:,} of {len(paths):,}" if done < len(paths) else "", start)
    return found


def read_member(path: Path, member: Member) -> bytes:
    """Reads a member's bytes. Raises: DataError if the tar has changed since it was indexed."""
    if member.size > LARGEST:
        raise DataError(f"{path}: {member.name} has {member.size:,} bytes; a member has at most {LARGEST:,}")
    with guard(f"can't read {path}"), path.open("rb") as file:
        file.seek(member.offset)
        data = file.read(member.size)
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise DataError(f"{path}: {member.name} has changed since the tar was indexed; start again")
    return data


def _index_tar(path: Path) -> Index:
    key, signature = os.fsencode(os.path.abspath(path)), read_signature(path)
    known = _MEMORY.get(key)
    if known is not None and known[0] == signature:
        return known[1]
    cache = find_cache_folder() / "tars" / f"{hashlib.sha256(key).hexdigest()[:32]}.json"
    index = _read_cache(cache, signature)
    if index is None:
        index = tuple(_scan(path))
        if read_signature(path) != signature:
            raise DataError(f"{path} changes while it is read; wait until it is complete")
        if not is_settled(signature):
            return index
        _write_cache(cache, signature, index)
    _MEMORY[key] = signature, index
    return index


def _read_cache(cache: Path, signature: Signature) -> Index | None:
    """Reads a kept index; None if there is none for this state of the tar."""
    try:
        version, known, rows = json.loads(cache.read_bytes())
        if version == _VERSION and tuple(known) == signature:
            return tuple(Member(*row) for row in rows)
    except (OSError, ValueError, TypeError):
        pass  # it only has to be made again
    return None


def _write_cache(cache: Path, signature: Signature, index: Index) -> None:
    """Keeps an index for later processes, and the newest others; a folder that can't be written only costs time."""
    try:
        place(cache, json.dumps([_VERSION, signature, [astuple(one) for one in index]]).encode(), sync=False)
        clear(cache.parent)
        for old in sorted(cache.parent.glob("*.json"), key=os.path.getmtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def _scan(path: Path) -> Iterator[Member]:
    """Reads the whole tar. Raises: DataError."""
    names = set()
    with _open(path) as tar:
        while (one := _next(path, tar)) is not None:
            _check_member(path, one)
            if one.isdir():
                continue
            if one.name in names:
                raise DataError(f"{path}: {one.name} appears twice")
            names.add(one.name)
            yield _digest(path, tar, one)
        _check_end(path, tar)


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        with guard(f"can't read {path} as an uncompressed tar"):
            tar = stack.enter_context(tarfile.open(path, "r:", tarinfo=_Header))
        yield tar


def _next(path: Path, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with guard(f"{path} is truncated or damaged near byte {tar.offset:,}"):
        return tar.next()


def _check_member(path: Path, one: tarfile.TarInfo) -> None:
    """Raises: DataError for a member that is not a plain file or folder inside the tar's own folder."""
    parts = PurePosixPath(one.name).parts
    if one.name.startswith("/") or ".." in parts or "\\" in one.name or ":" in one.name:
        raise DataError(f"{path}: the member {quote(one.name)} leaves the folder; names must be relative, without '..'")
    if not one.name.isprintable():
        raise DataError(f"{path}: the member {quote(one.name)} has a name with control characters or not in UTF-8")
    kind = next((text for ask, text in _KINDS.items() if getattr(one, ask)()), "")
    if kind or not (one.isreg() or one.isdir()):
        raise DataError(f"{path}: the member {quote(one.name)} is {kind or 'not a file'}; only plain files are read")


def _digest(path: Path, tar: tarfile.TarFile, one: tarfile.TarInfo) -> Member:
    """Reads a member's bytes to their end."""
    file, digest, left, text = _file_of(tar), hashlib.sha256(), one.size, b""
    wanted = one.name.lower().endswith(TEXTS)
    if wanted and one.size > LONGEST:
        raise DataError(f"{path}: {one.name} has {one.size:,} bytes; a label or caption has at most {LONGEST:,}")
    with guard(f"can't read {path}"):
        file.seek(one.offset_data)
    while left:
        with guard(f"can't read {path}"):
            data = file.read(min(left, _CHUNK))
        if not data:
            raise DataError(f"{path} is truncated: {one.name} lacks {left:,} of its {one.size:,} bytes")
        digest.update(data)
        left -= len(data)
        text += data if wanted else b""
    try:
        return Member(one.name, one.offset_data, one.size, digest.hexdigest(), text.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {one.name} is not UTF-8") from error


def _check_end(path: Path, tar: tarfile.TarFile) -> None:
    """Raises: DataError unless only zeros follow, at least one block, as at the end of a whole tar."""
    file, at = _file_of(tar), tar.offset
    with guard(f"can't read {path}"):
        file.seek(at)
    total = 0
    while True:
        with guard(f"can't read {path}"):
            data = file.read(_CHUNK)
        if data.strip(b"\0"):
            raise DataError(f"{path} is damaged: at byte {at + total:,} is neither a member nor the end")
        total += len(data)
        if not data:
            break
    if total < tarfile.BLOCKSIZE:
        raise DataError(f"{path} is truncated: it ends at byte {at + total:,} without an end mark")


def _file_of(tar: tarfile.TarFile) -> IO[bytes]:
    return cast(IO[bytes], tar.fileobj)
