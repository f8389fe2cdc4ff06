"""Files that processes and hosts share: each is written whole beside its place and then moved there; and locks.

A temporary file's name has the host, the process and a random number, so that two writers never share one. What a
killed writer left goes at once on its own host, and after a day on others. Locks are filelock's
(https://py-filelock.readthedocs.io): the system's own, which end with the process that holds them.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
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
PATIENCE = 5.0  # seconds without a word, of waiting for a lock


@cache
def host() -> str:
    """Where a process's number means something: this machine or container, in letters and digits."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # containers may have their host's name
    except OSError:
        space = ""
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{platform.node()} {space}")


@contextmanager
def placing(path: Path, *, folder: Path | None = None, sync: bool = True) -> Iterator[Path]:
    """A temporary file's path, to be written; it takes the place of `path` when the block ends without an exception.

    Args:
        path: its folder is made where it is missing.
        folder: of the temporary file, on the same disk [default: that of `path`].
        sync: whether it is on the disk before it is moved; not needed of what can be made again.

    Raises: OSError; then `path` is as it was.
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
    """Writes a file whole, or leaves it as it was; see `placing`. Raises: OSError."""
    with placing(path, folder=folder, sync=sync) as temporary:
        temporary.write_bytes(data)


def is_stale(temporary: Path) -> bool:
    """Whether the writer of a temporary file is gone; of another host's, whether it is a day old."""
    where, _, rest = temporary.name.removeprefix(TEMPORARY).partition("-")
    process = rest.partition("-")[0]
    if where == host() and process.isdigit() and not psutil.pid_exists(int(process)):
        return True
    try:
        return time.time() - temporary.stat().st_mtime > DAY
    except OSError:
        return False  # gone by now


def clear(folder: Path) -> None:
    """Removes what killed writers left in a folder."""
    for left in folder.glob(f"{TEMPORARY}*"):
        if is_stale(left):
            with suppress(OSError):
                left.unlink()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a file while the block runs; says so once where another process has held it for some seconds.

    Args:
        wait: until it is free.

    Raises: OSError where the file can't be made or locked; its subclass TimeoutError where another process holds the
        lock and `wait` is False.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0, poll_interval=0.01)
    except Timeout:
        if not wait:
            raise
        LOG.warning("another process holds %s; waiting for it", path)
        lock.acquire()
    except NotImplementedError as error:  # of releases before 3.20, on a disk without locks
        raise OSError(str(error)) from error
    try:
        yield
    finally:
        lock.release()
