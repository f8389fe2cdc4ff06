"""Files that commands write: whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rlbench.core.errors import StoreError


def check_writable(path: Path) -> None:
    """Raises StoreError if the file cannot be written. A missing folder can be made: the nearest that exists counts."""
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StoreError(f"can't write {path}: it is not a file; choose another path")
    check_folder(path.absolute().parent, path)


def check_folder(folder: Path, path: Path | None = None) -> None:
    """Raises StoreError (about `path`, if given) if the folder can't be made or its files can't be written."""
    nearest = Path(os.path.abspath(folder))
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise StoreError(f"can't write {path or folder}: {nearest} is not a writable folder; choose another path")


def write(path: Path, data: bytes | str) -> None:
    """Writes the file whole or not at all; its folder is made if it is missing. Raises: StoreError."""
    check_writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"can't write {path}: {error.strerror}; choose another path") from None


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, which is made if there are any files. Raises: StoreError."""
    for name, data in files.items():
        write(folder / name, data)


def emit(path: Path | None, text: str) -> None:
    """Writes the text to the file and prints its path, or prints the text if there is no file."""
    if path is None:
        sys.stdout.write(text)
    else:
        write(path, text)
        sys.stdout.write(f"wrote {path}\n")
