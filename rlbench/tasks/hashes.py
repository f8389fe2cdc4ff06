"""Hashes of files, each computed once: kept by path beside size, times and inode, and computed anew where those differ.

Kept in memory, and where it took long in `hashes.sqlite` in the user's cache folder (RLBENCH_CACHE, or the platform's).
A copy that can't be read or written costs time and nothing else. On POSIX systems a change of a file's bytes always
changes its ctime, which no program sets; on Windows, other bytes of the same size with the old time of change are
taken for the old ones.
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

Signature = tuple[int, int, int, int]  # size, times of change of content and of inode in ns, inode

_MEMORY: dict[bytes, tuple[Signature, bytes]] = {}
_SETTLED = 3 * 10**9  # ns: a file that changed later than this before it was read may change again within one tick
_SLOW = 0.5  # seconds of hashing that are worth keeping on disk
_SHOWN = 2.0  # seconds of hashing after which a terminal shows how far it is
_ROWS = 2_000_000  # that are kept on disk
_THREADS = 8
_BATCH = 1024  # files between two looks at the clock
_INT = (1 << 63) - 1  # the largest integer of SQLite


def cache_folder() -> Path:
    """Where rlbench keeps what it can make again: RLBENCH_CACHE, or the platform's folder for caches."""
    given = os.environ.get("RLBENCH_CACHE")
    if given:
        return Path(given)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "rlbench"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "rlbench"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "rlbench"


def digests(paths: Iterable[Path]) -> dict[Path, bytes]:
    """SHA-256 of each file's bytes. Raises: DataError, naming a file that can't be read or changes meanwhile."""
    keys = {path: os.fsencode(os.path.abspath(path)) for path in paths}
    signatures = {path: _signature(path) for path in keys}
    left = _missing(keys, signatures)
    if left:
        _recall([keys[path] for path in left])
        left = _missing(keys, signatures)
    fresh = dict(_hashed(left, signatures))
    return {path: fresh[path] if path in fresh else _MEMORY[keys[path]][1] for path in keys}


def _missing(keys: dict[Path, bytes], signatures: dict[Path, Signature]) -> list[Path]:
    """The files whose hash is not known as they are now."""
    return [path for path, key in keys.items() if _MEMORY.get(key, ((), b""))[0] != signatures[path]]


def _signature(path: Path) -> Signature:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise DataError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"can't read {path}: it is no file")
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & _INT


def _hashed(paths: Sequence[Path], signatures: dict[Path, Signature]) -> Iterator[tuple[Path, bytes]]:
    """Hashes files in threads, and keeps those that will not change within a tick of the clock."""
    start, sizes, done = time.monotonic(), sum(signatures[path][0] for path in paths), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(paths), _BATCH):
            batch, rows = paths[first : first + _BATCH], []
            for path, digest in zip(batch, pool.map(_digest, batch), strict=True):
                if _signature(path) != signatures[path]:
                    raise DataError(f"{path} changes while it is read; wait until it is written")
                if max(signatures[path][1:3]) < time.time_ns() - _SETTLED:
                    rows.append((os.fsencode(os.path.abspath(path)), signatures[path], digest))
                done += signatures[path][0]
                yield path, digest
            _MEMORY.update({key: (signature, digest) for key, signature, digest in rows})
            if time.monotonic() - start > _SLOW:
                _keep(rows)
            text = f"hashing files: {first + len(batch):,} of {len(paths):,}, {done / 1e9:.1f} of {sizes / 1e9:.1f} GB"
            _show(text if first + _BATCH < len(paths) else "", start)


def _show(text: str, start: float) -> None:
    """A line on a terminal that is written over, for what takes long."""
    if time.monotonic() - start > _SHOWN and sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


def _recall(keys: Sequence[bytes]) -> None:
    """Reads what is kept on disk of these files."""
    file = cache_folder() / "hashes.sqlite"
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


def _keep(rows: Sequence[tuple[bytes, Signature, bytes]]) -> None:
    """Writes hashes to disk, for other processes and later ones."""
    file = cache_folder() / "hashes.sqlite"
    columns = "path BLOB UNIQUE, size INT, mtime INT, ctime INT, inode INT, digest BLOB"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=2)) as base, base:
            base.execute(f"CREATE TABLE IF NOT EXISTS files ({columns})")
            values = [(key, *signature, digest) for key, signature, digest in rows]
            base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)
            base.execute("DELETE FROM files WHERE rowid <= (SELECT max(rowid) FROM files) - ?", (_ROWS,))
    except sqlite3.OperationalError:
        return  # locked, or on a disk that can't be written
    except sqlite3.DatabaseError:
        _forget(file)
    except (OSError, RuntimeError):
        return


def _forget(file: Path) -> None:
    """Removes what is no data base any more."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return
