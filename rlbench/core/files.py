"""Files that processes and hosts share: written to a temporary file, then moved into place; and locks.

A temporary file's name contains the host, the process and a random number, so that no two writers share one. A killed
writer's files are removed at once on its own host, and after a day on others. Locks are filelock's
(https://py-filelock.readthedocs.io): the system's own, which it releases when the process ends.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import psutil
from filelock import FileLock, Timeout

LOG = logging.getLogger("rlbench")
TEMPORARY = ".tmp-"
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
DAY = 86400.0  # seconds
PATIENCE = 5.0  # seconds to wait for a lock before a warning


@cache
def host() -> str:
    """The machine or container in which process ids are unique, in letters, digits and underscores."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # a container may have its host's name
    except OSError:
        space = ""
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{platform.node()} {space}")


def find_cache_folder() -> Path:
    """Finds rlbench's cache folder: RLBENCH_CACHE, or one in the platform's folder for caches."""
    given = os.environ.get("RLBENCH_CACHE")
    if given:
        return Path(given)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "rlbench"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "rlbench"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "rlbench"


@contextmanager
def placing(path: Path, *, folder: Path | None = None, sync: bool = True) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` if the block ends without an exception.

    Args:
        path: its folder is created if it is missing.
        folder: of the temporary file, on the same disk; by default that of `path`.
        sync: flush to the disk before the move; not needed for what can be computed again.

    Raises:
        OSError: the file can't be written; `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (folder or path.parent) / f"{TEMPORARY}{host()}-{os.getpid()}-{uuid4().hex}"
    try:
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def place(path: Path, data: bytes, *, folder: Path | None = None, sync: bool = True) -> None:
    """Writes a file atomically; see `placing`. Raises: OSError."""
    with placing(path, folder=folder, sync=sync) as temporary:
        temporary.write_bytes(data)


def is_stale(temporary: Path) -> bool:
    """Whether a temporary file's writer has ended, or the file is over a day old."""
    where, _, rest = temporary.name.removeprefix(TEMPORARY).partition("-")
    process = rest.partition("-")[0]
    if where == host() and process.isdigit() and not psutil.pid_exists(int(process)):
        return True
    try:
        return time.time() - temporary.stat().st_mtime > DAY
    except OSError:
        return False  # already moved or removed


def clear(folder: Path) -> None:
    """Removes the temporary files of killed writers from a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if is_stale(path):
            with suppress(OSError):
                path.unlink()


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a file's lock while the block runs; logs a warning if it has to wait for more than PATIENCE.

    Args:
        path: the lock file.
        wait: until the lock is free.

    Raises:
        OSError: the file can't be created or locked.
        TimeoutError: another process holds the lock, and `wait` is False.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0, poll_interval=0.01)
    except Timeout:
        if not wait:
            raise
        LOG.warning("another process holds %s; waiting for it", path)
        lock.acquire()
    except NotImplementedError as error:  # filelock before 3.20, on a disk without locks
        raise OSError(str(error)) from error
    try:
        yield
    finally:
        lock.release()
