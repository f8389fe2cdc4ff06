"""Files that processes and hosts share: written to a temporary file, then moved into place; and locks.

A temporary file's name contains the host, the process and a random number, so that no two writers share one. A killed
writer's files are removed by its own host only, which knows whether the process still runs: hosts' clocks may disagree.
Locks are filelock's (https://py-filelock.readthedocs.io): the system's own, which it releases when the process ends, or
a soft one (a file that exists while the lock is held) on a disk without locks.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import getnode, uuid4

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

LOG = logging.getLogger("rlbench")
TEMPORARY = ".tmp-"
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
PATIENCE = 5.0  # seconds to wait for a lock before a warning


@cache
def host() -> str:
    """The machine or container in which process ids are unique, in letters, digits and underscores.

    Its name, its network address, since machines may share a name, and its space of process ids, since a container may
    have its host's name.
    """
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{platform.node()} {getnode():x} {space}")


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


def name_temporary(folder: Path) -> Path:
    """The path of a new temporary file or folder, which `clear` removes once this process has ended."""
    return folder / f"{TEMPORARY}{host()}-{os.getpid()}-{uuid4().hex}"


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
    temporary = name_temporary(folder or path.parent)
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
    """Whether a temporary file's writer ran on this host and has ended."""
    where, _, rest = temporary.name.removeprefix(TEMPORARY).partition("-")
    process = rest.partition("-")[0]
    return where == host() and process.isdigit() and not psutil.pid_exists(int(process))


def clear(folder: Path) -> None:
    """Removes the temporary files and folders of this host's killed writers from a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if is_stale(path):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


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
    lock: BaseFileLock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait_for(lock, path, PATIENCE if wait else 0)
    except NotImplementedError:  # a disk without locks, for filelock that has no fallback of its own
        lock = SoftFileLock(path)
        _wait_for(lock, path, PATIENCE if wait else 0)
    try:
        yield
    finally:
        lock.release()


def _wait_for(lock: BaseFileLock, path: Path, seconds: float) -> None:
    """Acquires a lock, with a warning after some seconds. Raises: TimeoutError if they are 0 and it is not free."""
    try:
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except Timeout:
        if not seconds:
            raise
        LOG.warning("another process holds %s; waiting for it", path)
        lock.acquire()
