"""Hashes files, with a cache by path that is valid as long as size, times and inode stay the same.

The cache is in memory and, if hashing took long, in `hashes.sqlite` in the user's cache folder (RLBENCH_CACHE, or the
platform's). A cache that can't be read or written only costs time. On POSIX systems a change of a file's bytes always
changes its ctime, which programs can't set; on Windows, a change that keeps size and modification time is missed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from rlbench.core.errors import DataError
from rlbench.core.files import find_cache_folder

Signature = tuple[int, int, int, int]  # size, mtime and ctime in ns, inode

_MEMORY: dict[bytes, tuple[Signature, bytes]] = {}
_SETTLED = 3 * 10**9  # ns: a file changed more recently may change again within one tick of the clock
_SLOW = 0.5  # seconds of hashing after which hashes are stored on disk
_SHOWN = 2.0  # seconds of hashing after which a terminal shows progress
_ROWS = 2_000_000  # on disk, at most
_THREADS = 8
_BATCH = 1024  # files between two checks of the clock
_INT = (1 << 63) - 1  # the largest integer of SQLite


def hash_files(paths: Iterable[Path]) -> dict[Path, bytes]:
    """Computes the SHA-256 of each file. Raises: DataError, naming a file that can't be read or changes meanwhile."""
    keys = {path: os.fsencode(os.path.abspath(path)) for path in paths}
    signatures = {path: read_signature(path) for path in keys}
    stale = _list_stale(keys, signatures)
    if stale:
        _read_cache([keys[path] for path in stale])
        stale = _list_stale(keys, signatures)
    fresh = dict(_hash_new(stale, signatures))
    return {path: fresh[path] if path in fresh else _MEMORY[keys[path]][1] for path in keys}


def _list_stale(keys: dict[Path, bytes], signatures: dict[Path, Signature]) -> list[Path]:
    """Lists the files without a valid hash in memory."""
    return [path for path, key in keys.items() if _MEMORY.get(key, ((), b""))[0] != signatures[path]]


def read_signature(path: Path) -> Signature:
    """Reads a file's size, times and inode. Raises: DataError, naming a path that is not a file."""
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:
        raise DataError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"can't read {path}: it is not a file")
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino & _INT


def is_settled(signature: Signature) -> bool:
    """Whether a file changed long enough ago that a further change would alter its signature."""
    return max(signature[1:3]) < time.time_ns() - _SETTLED


def _hash_new(paths: Sequence[Path], signatures: dict[Path, Signature]) -> Iterator[tuple[Path, bytes]]:
    """Hashes files in threads, and caches the hashes of files that did not change just now."""
    start, sizes, done = time.monotonic(), sum(signatures[path][0] for path in paths), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(paths), _BATCH):
            batch, rows = paths[first : first + _BATCH], []
            for path, digest in zip(batch, pool.map(_hash_file, batch), strict=True):
                if read_signature(path) != signatures[path]:
                    raise DataError(f"{path} changes while it is read; wait until it is complete")
                if is_settled(signatures[path]):
                    rows.append((os.fsencode(os.path.abspath(path)), signatures[path], digest))
                done += signatures[path][0]
                yield path, digest
            _MEMORY.update({key: (signature, digest) for key, signature, digest in rows})
            if time.monotonic() - start > _SLOW:
                _write_cache(rows)
            text = f"hashing files: {first + len(batch):,} of {len(paths):,}, {done / 1e9:.1f} of {sizes / 1e9:.1f} GB"
            show_progress(text if first + _BATCH < len(paths) else "", start)


def show_progress(text: str, start: float) -> None:
    """Overwrites a line on the terminal once hashing has taken long."""
    if time.monotonic() - start > _SHOWN and sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def _hash_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


def _read_cache(keys: Sequence[bytes]) -> None:
    """Reads the hashes of these files from disk to memory."""
    file = find_cache_folder() / "hashes.sqlite"
    try:
        if not file.is_file():
            return
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", timeout=2, uri=True)) as base:
            for key in keys:
                row = base.execute(
                    "SELECT size, mtime, ctime, inode, digest FROM files WHERE path = ?", (key,)
                ).fetchone()
                if row is not None and isinstance(row[4], bytes) and len(row[4]) == 32:
                    _MEMORY[key] = (row[0], row[1], row[2], row[3]), row[4]
    except (sqlite3.Error, OSError, RuntimeError):
        return


def _write_cache(rows: Sequence[tuple[bytes, Signature, bytes]]) -> None:
    """Writes hashes to disk, for other and later processes."""
    file = find_cache_folder() / "hashes.sqlite"
    columns = "path BLOB UNIQUE, size INT, mtime INT, ctime INT, inode INT, digest BLOB"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=2)) as base, base:
            base.execute(f"CREATE TABLE IF NOT EXISTS files ({columns})")
            values = [(key, *signature, digest) for key, signature, digest in rows]
            base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)
            base.execute("DELETE FROM files WHERE rowid <= (SELECT max(rowid) FROM files) - ?", (_ROWS,))
    except sqlite3.OperationalError:
        return  # locked or read-only
    except sqlite3.DatabaseError:
        _remove_cache(file)
    except (OSError, RuntimeError):
        return


def _remove_cache(file: Path) -> None:
    """Removes a damaged database."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return
