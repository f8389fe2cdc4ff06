"""Calls into transformers and tokenizers without their printed output; errors are raised, as one line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as reports

from rlbench.core.errors import CheckpointError, first_line


@contextmanager
def quiet() -> Iterator[None]:
    """Turns off transformers' progress bars, reports and warnings; errors are still raised."""
    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _silent() -> Iterator[None]:
    """Discards what Rust writes to the process's stderr when it panics."""
    sys.stderr.flush()
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)


@contextmanager
def reading_tokenizer(folder: Path | str) -> Iterator[None]:
    """Raises: CheckpointError: the library raises any Exception, or Rust panics."""
    try:
        with quiet(), _silent():
            yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"the tokenizer of {folder} can't be read: {first_line(error)}") from error
