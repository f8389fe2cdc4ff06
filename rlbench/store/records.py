"""Reads files of records: one line of JSON per finished cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlbench.core import Record
from rlbench.core.documents import read_bytes, reason
from rlbench.core.errors import FieldError, StoreError, first_line
from rlbench.store.lines import OldFormat, from_line, identity

LINE, FILE = 2**23, 2**30  # the most bytes of a line and of a file
TIMES = ("seconds",)  # provenance that differs between two runs of the same cell


def drop_times(record: Record) -> Record:
    """The record without the provenance that differs between two runs of the same cell."""
    return replace(record, provenance={k: v for k, v in record.provenance.items() if k not in TIMES})


def parse(path: Path) -> tuple[list[Record], list[str]]:
    """Parses a file of records.

    Args:
        path: a .jsonl file.

    Returns:
        The records without repeats, and one sentence per unusable line.

    Raises:
        StoreError: a line has an older format.
        OSError: the file can't be read.
    """
    found: dict[tuple[str, int, str, str], Record] = {}
    problems = []
    lines = read_bytes(path, FILE).split(b"\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            if len(line) > LINE:
                raise ValueError(f"it has more than {LINE:,} bytes")
            record = from_line(line.decode())
            if _differ(record, found.setdefault(identity(record), record)):
                raise FieldError("a line above has its key and another result", "key")
        except OldFormat as error:
            raise StoreError(f"{path}, line {number}: {error}") from None
        except (ValueError, FieldError) as error:
            problems.append(f"{path}, line {number}, is not a record ({first_line(error)})")
    return list(found.values()), problems


def _differ(one: Record, other: Record) -> bool:
    """Whether two records of the same cell have different results."""
    return (one.n_correct, one.error, one.flags) != (other.n_correct, other.error, other.flags)


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """Reads and merges records.

    Args:
        paths: .jsonl files, folders of them, or stores.

    Raises:
        StoreError: a file is missing, a line is unusable, or two files have different results of the same cell.
    """
    found: dict[tuple[str, int, str, str], tuple[Record, Path]] = {}
    for file in (file for path in paths for file in record_files(Path(path))):
        try:
            records, problems = parse(file)
        except OSError as error:
            raise StoreError(f"can't read records from {file}: {reason(error)}; `rlbench run` writes them") from None
        if problems:
            raise StoreError(f"{problems[0]}; run the same command again to compute the cell again, or remove the line")
        for record in records:
            other, first = found.setdefault(identity(record), (record, file))
            if _differ(record, other):
                cell = f"{record.suite}, {record.model}, {record.perturbation}"
                raise StoreError(f"{file} contradicts {first} on one cell ({cell}); leave one of them out")
    return [record for record, _ in found.values()]


def check_namesakes(records: Iterable[Record]) -> None:
    """Checks that each model's name stands for one encoder, as where one model of each name is compared or reported.

    Raises:
        StoreError: a model has results of two checkpoints on the same data, or two results of one cell, as after a
            change of its code.
    """
    checkpoints: dict[tuple[object, ...], str] = {}
    keys: dict[tuple[object, ...], str] = {}
    for record in records:
        facts = record.provenance
        where = (record.suite, record.suite_version, record.modality, record.task, record.model)
        place = *where, facts.get("data"), facts.get("round")
        own = str(facts.get("checkpoint") or "")
        if own and (other := checkpoints.setdefault(place, own)) != own:
            raise StoreError(_describe_namesakes(record, f"two checkpoints, {other[:8]} and {own[:8]}"))
        cell = *place, record.perturbation, record.n, *(facts.get(name) for name in ("protocol", "anchors", "seed"))
        if keys.setdefault(cell, record.key) != record.key:
            raise StoreError(
                _describe_namesakes(record, f"two results of {record.perturbation}, such as of other code")
            )


def _describe_namesakes(record: Record, what: str) -> str:
    return f"the records of {record.model} on {record.suite} are of {what}; give those of one run only"


def record_files(path: Path) -> list[Path]:
    """The record files at a path: a store's own, all .jsonl files of another folder, or the file itself.

    Raises:
        StoreError: the folder has no .jsonl file.
    """
    if not path.is_dir() or (path / "records.jsonl").exists():
        return [path / "records.jsonl" if path.is_dir() else path]
    if not (found := sorted(path.glob("*.jsonl"))):
        raise StoreError(
            f"can't read records from {path}: it has no .jsonl file; `rlbench run --out {path}` writes one"
        )
    return found
