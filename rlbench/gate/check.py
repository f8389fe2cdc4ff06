"""A run through the regression gate: where its references are, what is run, and how references are made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.resources import files
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from rlbench.core import Record
from rlbench.core.errors import FieldError, StoreError
from rlbench.core.suite import load_suites
from rlbench.encoders.models import resolve_plain
from rlbench.gate.regression import Place, Policy, Report, gate, place
from rlbench.store.columns import reading_order
from rlbench.store.lines import to_line
from rlbench.store.per_example import example_ids
from rlbench.store.records import read_records, timeless
from rlbench.store.store import Store

HERE = Path("leaderboards", "records")
SUITE = "ci"
Ids = Mapping[object, Sequence[str]]


def home(asked: Path | None = None) -> Path:
    """Where references are read: as asked; else leaderboards/records here; else those that rlbench comes with."""
    if asked is not None or HERE.is_dir():
        return asked or HERE
    return Path(str(files("rlbench.leaderboards"))) / "records"


def references(path: Path) -> list[Record]:
    """The reference records of a .jsonl file, a folder of them, or a result store. Raises: StoreError."""
    if not path.exists() or (path.is_dir() and not any(path.glob("*.jsonl"))):
        raise StoreError(f"no reference records in {path}; rlbench check --update --model NAME makes some")
    return read_records([path])


def parts_of(suites: Iterable[str]) -> list[tuple[str, str]]:
    """The (suite, modality) of suites given by name or file."""
    return list(dict.fromkeys((suite.name, suite.modality) for given in suites for suite in load_suites(given)))


def models_of(known: Iterable[Record], parts: Sequence[tuple[str, str]]) -> list[str]:
    """The models that have references of these (suite, modality).

    Raises: FieldError where there is none; RLBenchError for a model that is a user's code: it must be named.
    """
    found = sorted({record.model for record in known if (record.suite, record.modality) in parts})
    if not found:
        names = ", ".join(name for name, _ in parts)
        raise FieldError(f"no model has references of {names}; rlbench check --update --model NAME makes some")
    for name in found:
        resolve_plain(name, "a reference record")
    return found


def measure(
    suites: Sequence[str],
    models: Sequence[str],
    *,
    out: Path | None = None,
    report: Callable[[Any], None] | None = None,
    **options: Any,
) -> tuple[list[Record], Ids]:
    """Runs the suites on the models from scratch, and returns the records and the examples' ids.

    Nothing that an earlier version computed is used: the code is what the gate is about.

    Args:
        out: the store [default: a temporary one]. report: called with the `runner.Progress`.
        options: of `planner.plan`.

    Raises: RLBenchError.
    """
    from rlbench.engine.plan.planner import plan
    from rlbench.engine.run.runner import execute

    with ExitStack() as stack:
        store = Store(out or stack.enter_context(TemporaryDirectory(prefix="rlbench-check-")))
        planned = plan(list(suites), list(models), store=store, fresh=True, **options)
        records = execute(planned, report or (lambda progress: None))
        return records, example_ids(store, records)


def check(
    model: str | Sequence[str] = (),
    suite: str | Sequence[str] = SUITE,
    *,
    reference: str | Path | None = None,
    policy: Policy | None = None,
    **options: Any,
) -> Report:
    """Runs suites on models and compares every cell with its reference record.

    Args:
        model: one or several [default: all that have references of these suites].
        reference: a file or folder of reference records [default: leaderboards/records, here or of rlbench].
        options: of `measure`.

    Raises: RLBenchError.
    """
    known = references(home(None if reference is None else Path(reference)))
    suites = [suite] if isinstance(suite, str) else list(suite)
    models = ([model] if isinstance(model, str) else list(model)) or models_of(known, parts_of(suites))
    records, ids = measure(suites, models, **options)
    return gate(known, records, policy, ids)


def renew_references(path: Path, records: Sequence[Record]) -> tuple[dict[Path, str], list[str]]:
    """What reference files will hold with these records in the place of those of their suites and models.

    Args:
        path: a .jsonl file, or a folder, where a suite's records are in <suite>.jsonl.

    Returns:
        The text of each file, and one sentence for each cell that changes.

    Raises: StoreError for a failed cell, a path of this machine, or a file that is not one of records.
    """
    texts: dict[Path, str] = {}
    said: list[str] = []
    for file, new in _by_file(path, records).items():
        old = read_records([file]) if file.is_file() else []
        scope = {place(record)[:3] for record in new}
        kept = [record for record in old if place(record)[:3] not in scope]
        texts[file] = "".join(_line(record) for record in sorted([*kept, *new], key=reading_order))
        said += _changes([record for record in old if place(record)[:3] in scope], new)
    return texts, said


def _by_file(path: Path, records: Iterable[Record]) -> dict[Path, list[Record]]:
    found: dict[Path, list[Record]] = {}
    for record in records:
        if record.error is not None:
            raise StoreError(f"{_describe(place(record))} failed, and is no reference: {record.error}")
        if PurePath(record.model).is_absolute():
            raise StoreError(f"a reference can't name {record.model}, a path of this machine; give a relative one")
        found.setdefault(path if path.suffix == ".jsonl" else path / f"{record.suite}.jsonl", []).append(record)
    return found


def _line(record: Record) -> str:
    """Without times and paths of this machine."""
    kept = {k: v for k, v in timeless(record).provenance.items() if not PurePath(str(v)).is_absolute()}
    return to_line(replace(record, provenance=kept)) + "\n"


def _changes(old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    before, after = ({place(record): record for record in records} for records in (old, new))
    lines = []
    for at in dict.fromkeys([*after, *before]):
        scores = [f"{_score(side[at])}" if at in side else "none" for side in (before, after)]
        changed = at not in before or at not in after or _line(before[at]) != _line(after[at])
        lines += [f"{_describe(at)}: {scores[0]} -> {scores[1]}"] if changed else []
    return lines


def _describe(at: Place) -> str:
    """A cell: `thermal thermal rlbind:mini clean on thermal-world`."""
    return f"{' '.join(at[:4])} on {at[4]}"


def _score(record: Record) -> str:
    share = 100 * (record.n_correct or 0) / record.n
    return f"{share:.1f} of n = {record.n} (protocol {str(record.provenance.get('protocol'))[:8]})"
