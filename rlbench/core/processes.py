"""Processors, how modules load, and Python subprocesses that end with their parent."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rlbench.core.errors import RLBenchError


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_here() -> None:
    """Raises RLBenchError if the working directory was removed, with which torch can't be imported."""
    try:
        os.getcwd()
    except OSError:
        raise RLBenchError("the working directory does not exist any more; go to a folder that does") from None


def open_streams() -> None:
    """Opens the standard streams that the caller closed (`2>&-`) on os.devnull, so that no file takes their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process


@contextmanager
def without_collection() -> Iterator[None]:
    """Collects no garbage in the block, which imports: that takes a sixth of torch's import, and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def command(code: str) -> list[str]:
    """The command of a new interpreter that runs `code` with this process's `sys.path` and ends when its stdin does."""
    start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import follow_parent; follow_parent(); {code}"
    return [sys.executable, "-P", "-c", start]


def follow_parent() -> None:
    """Ends this process when its stdin closes: a pipe that the parent holds open and never writes to."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
