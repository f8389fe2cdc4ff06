"""Files that commands write: whole, and only where that is possible."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlbench.core.errors import StoreError

if TYPE_CHECKING:
    pass


def check_writable(path: Path) -> None:
    """Raises: StoreError."""
    folder = path.absolute().parent
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StoreError(f"can't write {path}: it is no file; choose another path")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StoreError(f"can't write {path}: {folder} is no folder that can be written to; choose another path")


def write(path: Path, data: bytes | str) -> None:
    """Writes the file whole or not at all. Raises: StoreError."""
    check_writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"can't write {path}: {error.strerror}; choose another path") from None


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, which is made if there are any. Raises: StoreError."""
    with suppress(OSError):  # the first file says what is wrong
        if files:
            folder.mkdir(exist_ok=True)
    for name, data in files.items():
        write(folder / name, data)


def emit(path: Path | None, text: str) -> None:
    """Writes the text to the file and says so, or prints it."""
    if path is None:
        sys.stdout.write(text)
    else:
        write(path, text)
        sys.stdout.write(f"wrote {path}\n")
