"""What a worker sends besides its results and reports: log messages and errors."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable

from rlbench.core.errors import RLBenchError
from rlbench.core.files import LOG

SentError = tuple[Exception | None, str]  # the error, if it can be pickled, and its traceback


class Forward(logging.Handler):
    """Sends a worker's log messages to a function instead of printing them."""

    def __init__(self, send: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send(record.getMessage())


def forward_log(send: Callable[[str], object]) -> None:
    """Sends all of this process's log messages to a function."""
    LOG.addHandler(Forward(send))
    LOG.propagate = False


class Notes:
    """Logs the workers' messages, each once for all workers."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def add(self, text: str) -> None:
        if text not in self.seen:
            self.seen.add(text)
            LOG.warning(text)


def pack_error(error: Exception) -> SentError:
    """An error as a worker sends it; to be called where it is handled."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None, text
    return error, text


def unpack_error(error: Exception | None, text: str) -> Exception:
    """The error that a worker sent, with its traceback as a note if it is a bug."""
    if error is None:
        return RuntimeError(f"a worker failed:\n{text}")
    if not isinstance(error, RLBenchError):
        error.add_note(f"in a worker:\n{text}")
    return error
