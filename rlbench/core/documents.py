"""Reads text files that people write or exchange: of bounded size, and strict JSON."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from rlbench.core.errors import RLBenchError, quote

SIZE = 2**17  # the most bytes of a file that a person writes, such as YAML


def expand_user(path: str) -> Path:
    """The path with `~` and `~name` expanded. Raises: RLBenchError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RLBenchError(f"{quote(path)}: there is no user of this name; write ./~... for a file's name") from None


def read_bytes(path: str | os.PathLike[str], limit: int = SIZE) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it can't be read, is a folder, pipe or device, or has more than `limit` bytes.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # opening a pipe would block
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            kind = "folder" if stat.S_ISDIR(os.fstat(file.fileno()).st_mode) else "pipe or device"
            raise OSError(0, f"it is a {kind}, not a file")
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, limit) + 1)  # a file may grow, and read() reserves what it is asked for
        while len(data) <= limit and (more := file.read(2**16)):
            data += more
    if len(data) > limit:
        raise OSError(0, f"it has more than {limit:,} bytes")
    return data


def read_text(path: str | os.PathLike[str], limit: int = SIZE) -> str:
    """The text of a regular UTF-8 file, without a byte order mark. Raises: OSError, UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8-sig")


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return f"line {error.object.count(10, 0, error.start) + 1} is not UTF-8 (byte {error.object[error.start]:#04x})"
    return error.strerror or str(error)


def load_json(text: str) -> Any:
    """Parses JSON strictly.

    Raises:
        ValueError: it is not JSON, repeats a name, holds NaN or an infinity, or is nested too deeply.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_check_unique, parse_constant=_refuse_constant, parse_float=_parse_finite
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{quote(name)} appears twice")
        found[name] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _parse_finite(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError(f"{text[:40]} is too large")
    return value
