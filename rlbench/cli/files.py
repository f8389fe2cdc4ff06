"""Files that commands write: whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rlbench.core.errors import StoreError


def check_writable(path: Path) -> None:
    """Raises StoreError if the file cannot be written."""
    folder = path.absolute().parent
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StoreError(f"can't write {path}: it is not a file; choose another path")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StoreError(f"can't write {path}: {folder} is not a writable folder; choose another path")


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
    """Writes files into a folder, which is created if there are any files. Raises: StoreError."""
    with suppress(OSError):  # writing the first file reports it
        if files:
            folder.mkdir(exist_ok=True)
    for name, data in files.items():
        write(folder / name, data)


def emit(path: Path | None, text: str) -> None:
    """Writes the text to the file and prints its path, or prints the text if there is no file."""
    if path is None:
        sys.stdout.write(text)
    else:
        write(path, text)
        sys.stdout.write(f"wrote {path}\n")
