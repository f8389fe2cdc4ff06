"""Checks that a local copy of a published data set is complete: counts, classes, files, checksums, decoding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rlbench.core import Box, Modality, registry
from rlbench.core.errors import DataError, UnknownName
from rlbench.tasks.captioned import Captioned
from rlbench.tasks.published import Published, Source
from rlbench.tasks.wds import Sharded, wds
from rlbench.tasks.wds_sets import load_sets

DECODED = 16  # media to decode, at most
_BOXES: dict[Modality, Box] = {
    "image": Box(shape=(3, 32, 32)),
    "thermal": Box(shape=(1, 32, 32)),
    "depth": Box(shape=(1, 32, 32)),
    "audio": Box(shape=(1, 32, 32), unit="log-mel"),
    "video": Box(shape=(3, 8, 32, 32)),
}


@dataclass(frozen=True)
class CopyCheck:
    """The result of one check.

    Attributes:
        what: what was checked.
        found: what was found.
        good: whether that is correct; None if unknown.
    """

    what: str
    found: str
    good: bool | None = None


@dataclass(frozen=True)
class CopyReport:
    """The checks of a copy; `whole` if none failed."""

    name: str
    source: Source
    folder: str
    findings: tuple[CopyCheck, ...]

    @property
    def whole(self) -> bool:
        return all(finding.good is not False for finding in self.findings)


def list_data_sets() -> dict[str, Published]:
    """Lists the published data sets by the names of their tasks; webdatasets are named wds/NAME."""
    factories = {name: registry.factory("task", name) for name in registry.names("task")}
    found = {name: one() for name, one in factories.items() if isinstance(one, type) and issubclass(one, Published)}
    return found | {f"wds/{name}": wds(dataset=name) for name in sorted(load_sets())}


def count_classes(task: Published) -> int:
    """The number of a data set's classes; 0 if only the data say it and they are not there."""
    if isinstance(task, Captioned | Sharded):
        return task.source.classes
    try:
        return len(task.classes)
    except DataError:
        return 0


def inspect_copy(name: str, root: str = "") -> CopyReport:
    """Checks the copy at `root`, or at the data set's folder below RLBENCH_DATA.

    Raises: UnknownName; DataError if there is no folder. Other faults are findings.
    """
    known = list_data_sets()
    if name not in known:
        raise UnknownName("published data set", name, known)
    task = replace(known[name], root=root)
    folder = str(task.folder)
    try:
        findings = tuple(_check(task))
    except DataError as error:
        findings = (CopyCheck("layout", str(error), False),)
    return CopyReport(name, task.source, folder, findings)


def _check(task: Published) -> Iterator[CopyCheck]:
    about, items = task.source, task.items()
    yield _check_count(len(items), 0 if about.rounded else about.test, partial=about.partial)
    yield _check_classes(task)
    files = sorted({item.path for item in items})
    missing = [path for path in files if not (task.folder / path).is_file() or not (task.folder / path).stat().st_size]
    examples = f"; missing or empty: {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}" * bool(missing)
    yield CopyCheck("files", f"{len(files) - len(missing):,} of {len(files):,}{examples}", not missing)
    for path, expected in about.md5.items():
        if (task.folder / path).is_file():
            yield _check_md5(task.folder / path, expected)
    if not missing:
        yield _check_decoding(task)
        yield CopyCheck("fingerprint", task.fingerprint())


def _check_count(found: int, whole: int, *, partial: bool) -> CopyCheck:
    if not whole:
        return CopyCheck("test examples", f"{found:,}; the expected number is unknown", None if found else False)
    if found == whole or not partial:
        return CopyCheck("test examples", f"{found:,} of {whole:,}", found == whole)
    text = f"{found:,} of {whole:,}: the rest is no longer available, so copies differ"
    return CopyCheck("test examples", text, None if 0 < found < whole else False)


def _check_classes(task: Published) -> CopyCheck:
    if isinstance(task, Captioned):
        captions = sum(map(len, task.captions))
        return CopyCheck("captions", f"{captions:,} in {len(task.captions):,} sets")
    used, known = {item.label for item in task.items()}, [one.label for one in task.classes]
    without = [label for label in known if label not in used]
    more = f"; none of {', '.join(without[:3])}{', ...' * (len(without) > 3)}" * bool(without)
    return CopyCheck("classes", f"{len(used):,} of {len(known):,}{more}", None if task.source.partial else not without)


def _check_md5(path: Path, expected: str) -> CopyCheck:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    same = found == expected
    return CopyCheck(f"md5 of {path.name}", found if same else f"{found}; it must be {expected}", same)


def _check_decoding(task: Published) -> CopyCheck:
    """Reads some examples, spread evenly over the split."""
    items = task.items()
    chosen = [items[k * len(items) // DECODED] for k in range(DECODED)] if len(items) > DECODED else items
    for item in chosen:
        try:
            task.read(item, _BOXES[task.modality])
        except DataError as error:
            return CopyCheck("decoding", str(error), False)
    return CopyCheck("decoding", f"{len(chosen)} examples, spread evenly over the split", True)
