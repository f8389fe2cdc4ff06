"""Is a local copy of a published data set whole? What is there is counted, compared and read; nothing is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlbench.core import Box, Modality, registry
from rlbench.core.errors import DataError, UnknownName
from rlbench.tasks.captioned import Captioned
from rlbench.tasks.published import Published

READ = 16  # media that are decoded
_BOXES: dict[Modality, Box] = {
    "image": Box(shape=(3, 32, 32)),
    "thermal": Box(shape=(1, 32, 32)),
    "depth": Box(shape=(1, 32, 32)),
    "audio": Box(shape=(1, 32, 32), unit="log-mel"),
    "video": Box(shape=(3, 8, 32, 32)),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and whether that is as it should be; None where none can tell."""

    what: str
    found: str
    good: bool | None = None


@dataclass(frozen=True)
class Copy:
    """What a check found; `whole` if nothing of it is wrong."""

    name: str
    folder: str
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        return all(finding.good is not False for finding in self.findings)


def data_sets() -> dict[str, type[Published]]:
    """The published data sets by the names of their tasks."""
    made = {name: registry.factory("task", name) for name in registry.names("task")}
    return {name: one for name, one in made.items() if isinstance(one, type) and issubclass(one, Published)}


def inspect_copy(name: str, root: str = "") -> Copy:
    """Checks the copy at `root`, or at the data set's folder below RLBENCH_DATA.

    Raises: UnknownName. DataError where there is no folder; a copy that can't be used otherwise is a finding.
    """
    known = data_sets()
    if name not in known:
        raise UnknownName("published data set", name, known)
    task = known[name](root=root)
    folder = str(task.folder)
    try:
        findings = tuple(_findings(task))
    except DataError as error:
        findings = (Finding("layout", str(error), False),)
    return Copy(name, folder, findings)


def _findings(task: Published) -> Iterator[Finding]:
    about, items = task.source, task.items()
    yield _count(len(items), about.test, partial=about.partial)
    yield _classes(task)
    files = sorted({item.path for item in items})
    lost = [path for path in files if not (task.folder / path).is_file() or not (task.folder / path).stat().st_size]
    named = f"; missing or empty: {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}" * bool(lost)
    yield Finding("files", f"{len(files) - len(lost):,} of {len(files):,}{named}", not lost)
    for path, expected in about.md5.items():
        if (task.folder / path).is_file():
            yield _checksum(task.folder / path, expected)
    if not lost:
        yield _decode_some(task)
        yield Finding("fingerprint", task.fingerprint())


def _count(found: int, whole: int, *, partial: bool) -> Finding:
    if not whole:
        return Finding("test examples", f"{found:,}; how many there should be is not known", None if found else False)
    if found == whole or not partial:
        return Finding("test examples", f"{found:,} of {whole:,}", found == whole)
    text = f"{found:,} of {whole:,}: the rest can't be had any more, so that two copies are two data sets"
    return Finding("test examples", text, None if 0 < found < whole else False)


def _classes(task: Published) -> Finding:
    if isinstance(task, Captioned):
        captions = sum(map(len, task.captions))
        return Finding("captions", f"{captions:,} in {len(task.captions):,} sets")
    used, known = {item.label for item in task.items()}, [one.label for one in task.classes]
    without = [label for label in known if label not in used]
    more = f"; none of {', '.join(without[:3])}{', ...' * (len(without) > 3)}" * bool(without)
    return Finding("classes", f"{len(used):,} of {len(known):,}{more}", None if task.source.partial else not without)


def _checksum(path: Path, expected: str) -> Finding:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    same = found == expected
    return Finding(f"md5 of {path.name}", found if same else f"{found}; it should be {expected}", same)


def _decode_some(task: Published) -> Finding:
    """Reads some examples, evenly over the split."""
    items = task.items()
    chosen = [items[k * len(items) // READ] for k in range(READ)] if len(items) > READ else items
    for item in chosen:
        try:
            task.read(item, _BOXES[task.modality])
        except DataError as error:
            return Finding("decoding", str(error), False)
    return Finding("decoding", f"{len(chosen)} examples, evenly over the split", True)
