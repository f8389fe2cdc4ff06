"""What the train split of a suite's files shares with the splits that measure, and a hash of what trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlbench.core import Split, Task
from rlbench.core.files import LOG
from rlbench.tasks.folder import Folder
from rlbench.tasks.hashes import hash_files
from rlbench.tasks.published import Published

FEW = 10  # val examples below which a validation says nothing
MEASURES: tuple[Split, ...] = ("val", "test")


class Entry(NamedTuple):
    """An example of a task of files.

    Attributes:
        path: its file.
        part: the part of the file that it is; "" for the whole file.
        label: its class.
        source: what it shares with other examples, such as a recording; its own path if it shares nothing.
    """

    path: Path
    part: str
    label: str
    source: str


def list_entries(task: Task, split: Split) -> list[Entry]:
    """Lists the examples of a split; none of a task that is not made of files. Raises: DataError."""
    if isinstance(task, Folder):
        return [Entry(task.root / row.path, "", row.label, row.source) for row in task.rows[split]]
    if isinstance(task, Published):
        items = task.items(split)
        return [Entry(task.folder / item.path, str(item.part), item.label, item.source) for item in items]
    return []


def hash_training(task: Task) -> str | None:
    """Hashes the examples of the train and the val split; None for a task that is not made of files.

    Raises:
        DataError: a file can't be read.
    """
    entries = {split: list_entries(task, split) for split in ("train", "val")} if _has_train(task) else {}
    if not entries:
        return None
    hashes = hash_files({one.path for some in entries.values() for one in some})
    digest = hashlib.sha256()
    for split, some in entries.items():
        for one in some:
            digest.update(f"{split} {one.label} {one.part} {hashes[one.path].hex()}\n".encode())
    return digest.hexdigest()[:16]


def list_repeats(task: Task, name: str) -> tuple[str, ...]:
    """Describes the val and the test examples whose bytes are in the train split, too, for a card.

    Args:
        task: the task.
        name: what its data are called.

    Raises:
        DataError: a file can't be read.
    """
    if not _has_train(task):
        return ()
    train, found = set(_hash_contents(list_entries(task, "train"))), []
    for split in MEASURES:
        contents = _hash_contents(list_entries(task, split))
        if repeated := sum(one in train for one in contents):
            found.append(f"{repeated} of {len(contents)} {split} examples of {name}")
    return tuple(found)


def list_shared_sources(task: Task) -> tuple[str, ...]:
    """Describes the val and the test examples of a recording or another source that trains, too. Raises: DataError."""
    train = {one.source for one in list_entries(task, "train")} - {""}
    found = []
    for split in MEASURES:
        sources = [one.source for one in list_entries(task, split)]
        if shared := sum(one in train for one in sources):
            found.append(f"{shared} of {len(sources)} {split} examples")
    return tuple(found)


def list_untrained(task: Task) -> tuple[str, ...]:
    """Lists the names of classes without a train example. Raises: DataError."""
    labels = {one.label for one in list_entries(task, "train")}
    return tuple(one.name for one in task.classes if one.label not in labels) if labels else ()


def warn_of_splits(task: Task, repeats: Sequence[str]) -> None:
    """Warns of what makes the numbers of a suite's own splits too good, or training incomplete.

    Args:
        task: the task.
        repeats: what `list_repeats` returned.
    """
    for text in repeats:
        LOG.warning("the train split has the same files as %s: numbers on them are too good; the card says so", text)
    for text in list_shared_sources(task) if not repeats else ():
        LOG.warning("%s have a source (a recording, a flight) that is in the train split, too; split by source", text)
    if missing := list_untrained(task):
        names = f"{', '.join(missing[:3])}{', ...' * (len(missing) > 3)}"
        LOG.warning("%d of %d classes have no train example: %s", len(missing), len(task.classes), names)
    size = task.size("val")
    if size is not None and size < FEW:
        best = "best/ has the last weights" if size == 0 else "best/ is chosen by it"
        LOG.warning("the val split has %d examples, which is too few to choose by; %s", size, best)


def _has_train(task: Task) -> bool:
    return bool(list_entries(task, "train"))


def _hash_contents(entries: Sequence[Entry]) -> list[tuple[bytes, str]]:
    hashes = hash_files({one.path for one in entries})
    return [(hashes[one.path], one.part) for one in entries]
