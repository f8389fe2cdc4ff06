"""Records: one JSON line a finished cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlbench.core import Record
from rlbench.core.documents import read_bytes, reason
from rlbench.core.errors import FieldError, StoreError, first_line
from rlbench.store.lines import OldFormat, from_line, identity

LINE, FILE = 2**23, 2**30  # the most bytes of a line and of a file of records


TIMED = ("seconds",)  # provenance that differs between two runs of the same cell


def timeless(record: Record) -> Record:
    """The record without what differs between two runs of the same cell (seconds)."""
    return replace(record, provenance={k: v for k, v in record.provenance.items() if k not in TIMED})


def parse(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a JSON lines file, one of each identity, and one sentence for each unusable line.

    Raises: StoreError for a line of an older format. OSError.
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
                raise FieldError("its key stands in a line above with another result", "key")
        except OldFormat as error:
            raise StoreError(f"{path}, line {number}: {error}") from None
        except (ValueError, FieldError) as error:
            problems.append(f"{path}, line {number}, is not a record ({first_line(error)})")
    return list(found.values()), problems


def _differ(one: Record, other: Record) -> bool:
    """Whether they contradict each other on a cell."""
    return (one.n_correct, one.error, one.flags) != (other.n_correct, other.error, other.flags)


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """The records of JSON lines files, of folders of them, or of stores, merged.

    Raises: StoreError for a missing file, an unusable line, or two files with other results of the same cell.
    """
    found: dict[tuple[str, int, str, str], tuple[Record, Path]] = {}
    for file in (file for path in paths for file in record_files(Path(path))):
        try:
            records, problems = parse(file)
        except OSError as error:
            raise StoreError(f"can't read records from {file}: {reason(error)}; `rlbench run` writes them") from None
        if problems:
            raise StoreError(f"{problems[0]}; run the same command again to compute it again, or remove the line")
        for record in records:
            other, before = found.setdefault(identity(record), (record, file))
            if _differ(record, other):
                cell = f"{record.suite}, {record.model}, {record.perturbation}"
                raise StoreError(f"{file} contradicts {before} on one cell ({cell}); leave one of them out")
    return [record for record, _ in found.values()]


def record_files(path: Path) -> list[Path]:
    """A store's file of records, those of a folder of .jsonl files, or the file itself. Raises: StoreError for none."""
    if not path.is_dir() or (path / "records.jsonl").exists():
        return [path / "records.jsonl" if path.is_dir() else path]
    if not (found := sorted(path.glob("*.jsonl"))):
        raise StoreError(
            f"can't read records from {path}: no .jsonl file is there; `rlbench run --out {path}` makes it"
        )
    return found
