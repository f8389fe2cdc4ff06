"""What a library raises on a user's file, as one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlbench.core.errors import DataError, RLBenchError, first_line

_LONGEST = 200  # characters of what a library says


@contextmanager
def guard(what: str) -> Iterator[None]:
    """Turns whatever the block raises into a DataError that starts with `what`, such as "can't read the image a.png".

    Decoders raise what they like on a damaged file: struct.error, zlib.error, OverflowError, MemoryError. So the block
    must hold calls into a library and nothing else: a fault of rlbench in it would be taken for one of the file.
    """
    try:
        yield
    except RLBenchError:
        raise
    except Exception as error:
        said = getattr(error, "strerror", None) or first_line(error)
        said = f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said
        text = "".join(c if c.isprintable() else "?" for c in str(said))
        raise DataError(f"{what}: {text[:_LONGEST]}") from error
