"""Copies a recording of any kind with a corruption applied: whole, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rlbench.core.errors import DataError, StoreError
from rlbench.core.files import FULL, clear, name_temporary
from rlbench.core.media.bags import is_bag
from rlbench.core.media.lerobot import is_lerobot
from rlbench.corruptions.copies.bags import copy_bag
from rlbench.corruptions.copies.corruptor import Corruptor
from rlbench.corruptions.copies.folders import copy_file, copy_folder, copy_lerobot
from rlbench.corruptions.copies.tally import Tally


def copy_corrupted(source: Path, target: Path, corruptor: Corruptor, tally: Tally) -> str:
    """Copies a bag, a LeRobot data set, a folder, a film, a picture or a sound, corrupted.

    Args:
        source: what to copy.
        target: of the copy; must not exist, and appears only once it is whole.
        corruptor: what to do.
        tally: counts what was corrupted and what was only copied.

    Returns:
        The kind of recording.

    Raises:
        DataError: the source is missing or damaged, or nothing in it can be corrupted.
        StoreError: the target exists or can't be written.
    """
    _check(source, target)
    temporary = name_temporary(target.absolute().parent)
    clear(temporary.parent)
    try:
        temporary.mkdir()
    except OSError as error:
        raise StoreError(f"can't write {target}: {error.strerror}; choose another path") from None
    try:
        kind = _copy(source, temporary / target.name, corruptor, tally)
        if not tally.corrupted:
            left = ", ".join(f"{count:,} {what}" for what, count in tally.copied.items())
            name = f"{corruptor.name} (for {', '.join(sorted(corruptor.corruption.modalities))})"
            whole = "; --only takes whole names, or patterns such as '/camera/*'" if corruptor.only else ""
            raise DataError(f"nothing in {source} can be corrupted by {name}: {left or 'it is empty'}{whole}")
        if corruptor.limits is not None and 16 not in corruptor.depths:
            raise DataError(
                "--range is for 16-bit pictures, and those corrupted have 8 bits, shown from 0 to 255; leave it out"
            )
        os.rename(temporary / target.name, target)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StoreError(f"can't write {target}: {error.strerror}; free some space, or choose another path") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return kind


def _copy(source: Path, target: Path, corruptor: Corruptor, tally: Tally) -> str:
    if is_bag(source):
        copy_bag(source, target, corruptor, tally)
        return "bag"
    if source.is_dir() and is_lerobot(source):
        copy_lerobot(source, target, corruptor, tally)
        return "LeRobot data set"
    if source.is_dir():
        copy_folder(source, target, corruptor, tally)
        return "folder"
    copy_file(source, target, corruptor, tally, source.name)
    return "file"


def _check(source: Path, target: Path) -> None:
    if not source.exists():
        raise DataError(f"there is no {source}; give a bag, a LeRobot data set, a folder, or a film, picture or sound")
    if os.path.lexists(target):
        raise StoreError(f"{target} exists; nothing is overwritten: choose another path")
    if source.is_file() and source.suffix.lower() != target.suffix.lower():
        raise StoreError(f"{target} must end in {source.suffix or 'nothing'}, as {source} does")
    if source.is_dir() and target.absolute().resolve().is_relative_to(source.absolute().resolve()):
        raise StoreError(f"{target} lies in {source}; choose a path outside of it")
