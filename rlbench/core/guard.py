"""Turns what a library raises on a user's file into one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlbench.core.errors import DataError, RLBenchError, first_line

_LONGEST = 200  # characters of a library's message


@contextmanager
def guard(what: str) -> Iterator[None]:
    """Turns any exception of the block into a DataError that starts with `what`, such as "can't read the image a.png".

    On a damaged file, decoders raise anything: struct.error, zlib.error, OverflowError, MemoryError. The block must
    hold calls into a library and nothing else, so that no bug of rlbench is blamed on the file.
    """
    try:
        yield
    except RLBenchError:
        raise
    except Exception as error:
        message = getattr(error, "strerror", None) or first_line(error)
        message = f"{type(error).__name__}: {message}" if isinstance(error, LookupError) else message
        text = "".join(c if c.isprintable() else "?" for c in str(message))
        raise DataError(f"{what}: {text[:_LONGEST]}") from error
