"""SIGTERM, by which batch systems, containers and `kill` end a process, as an interruption like Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


def exit_code(error: KeyboardInterrupt) -> int:
    """130 of Ctrl-C and 143 of SIGTERM, as shells have them."""
    return 143 if isinstance(error, Terminated) else 130


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` at the first SIGTERM in the block; a second one ends the process at once.

    Outside of the main thread, and where a program that calls the command has its own handler, nothing changes.
    """

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
