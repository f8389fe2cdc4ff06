"""Runs the regression gate: finds the reference records, runs the suites, and updates the references."""

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
from rlbench.encoders.models import default_name, resolve_plain
from rlbench.gate.regression import CellId, Policy, Report, cell_id, gate
from rlbench.store.columns import reading_order
from rlbench.store.lines import to_line
from rlbench.store.per_example import example_ids
from rlbench.store.records import check_namesakes, drop_times, read_records
from rlbench.store.store import Store

HERE = Path("leaderboards", "records")
SUITE = "ci"
Ids = Mapping[object, Sequence[str]]  # the examples' ids by the hash of their data


def find_references(path: Path | None = None) -> Path:
    """The path of the references: `path`, else leaderboards/records here, else the bundled ones."""
    if path is not None or HERE.is_dir():
        return path or HERE
    return Path(str(files("rlbench.leaderboards"))) / "records"


def read_references(path: Path) -> list[Record]:
    """Reads reference records.

    Args:
        path: a .jsonl file, a folder of them, or a result store.

    Raises:
        StoreError: there are none, or they can't be read.
    """
    if not path.exists() or (path.is_dir() and not any(path.glob("*.jsonl"))):
        raise StoreError(f"no reference records in {path}; rlbench check --update --model NAME writes some")
    return read_records([path])


def list_parts(suites: Iterable[str]) -> list[tuple[str, str]]:
    """The (suite, modality) of suites given by name or file, without repeats."""
    return list(dict.fromkeys((suite.name, suite.modality) for given in suites for suite in load_suites(given)))


def list_models(references: Iterable[Record], parts: Sequence[tuple[str, str]]) -> list[str]:
    """The models that have references of some (suite, modality).

    Raises:
        FieldError: there is none.
        RLBenchError: a model is a user's code, which is only run if the user names it.
    """
    found = list_names(references, parts)
    if not found:
        names = ", ".join(name for name, _ in parts)
        raise FieldError(f"no model has references of {names}; rlbench check --update --model NAME writes some")
    for name in found:
        resolve_plain(name, "a reference record")
    return found


def list_names(references: Iterable[Record], parts: Sequence[tuple[str, str]]) -> list[str]:
    """The names of the models that have references of some (suite, modality)."""
    return sorted({record.model for record in references if (record.suite, record.modality) in parts})


def check_models(references: Sequence[Record], parts: Sequence[tuple[str, str]], models: Iterable[str]) -> None:
    """Checks before a run that each model has references of each suite, in some modality.

    Raises:
        FieldError: one has none, so that there would be nothing to compare it with.
    """
    for suite in dict.fromkeys(name for name, _ in parts):
        having = list_names(references, [part for part in parts if part[0] == suite])
        for model in models:
            if default_name(model) not in having:
                raise FieldError(
                    f"{model} has no references of {suite} (models that have: {', '.join(having) or 'none'}); the same "
                    "command with --update writes them"
                )


def list_required(parts: Sequence[tuple[str, str]], models: Sequence[str]) -> list[tuple[str, str, str]]:
    """The (suite, modality, model) whose references need fresh records: a model that was left out must not pass."""
    return [(*part, default_name(model)) for part in parts for model in models]


def measure(
    suites: Sequence[str],
    models: Sequence[str],
    *,
    out: Path | None = None,
    report: Callable[[Any], None] | None = None,
    **options: Any,
) -> tuple[list[Record], Ids]:
    """Runs suites on models from scratch; results of earlier versions are not used, since the gate tests the code.

    Args:
        suites: by name or file.
        models: by name.
        out: the store (default: a temporary one).
        report: called with a `runner.Progress`.
        options: of `planner.plan`.

    Returns:
        The records and the examples' ids.

    Raises:
        RLBenchError: as `planner.plan`.
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
        model: one or several names (default: all models that have references of these suites).
        suite: one or several names or files.
        reference: a file or folder of reference records (default: leaderboards/records, here or in rlbench).
        policy: when the gate fails.
        options: of `measure`.

    Raises:
        RLBenchError: there are no references, or as `planner.plan`.
    """
    references = read_references(find_references(None if reference is None else Path(reference)))
    suites = [suite] if isinstance(suite, str) else list(suite)
    models = ([model] if isinstance(model, str) else list(model)) or list_models(references, list_parts(suites))
    check_models(references, list_parts(suites), models)
    records, ids = measure(suites, models, **options)
    return gate(references, records, policy, ids, list_required(list_parts(suites), models))


def renew_references(path: Path, records: Sequence[Record]) -> tuple[dict[Path, str], list[str]]:
    """The new content of reference files, in which `records` replace all records of their suites and models.

    Args:
        path: a .jsonl file, or a folder, which has a suite's records in <suite>.jsonl.
        records: of a run.

    Returns:
        The text of each file, and one line per changed cell.

    Raises:
        StoreError: a cell failed, a model is an absolute path, the records have two models of one name, or a file is
            not a file of records.
    """
    check_namesakes(records)
    texts: dict[Path, str] = {}
    changes: list[str] = []
    for file, new in _group_by_file(path, records).items():
        old = read_records([file]) if file.is_file() else []
        scope = {cell_id(record)[:3] for record in new}
        others = [record for record in old if cell_id(record)[:3] not in scope]
        texts[file] = "".join(_to_line(record) for record in sorted([*others, *new], key=reading_order))
        changes += _list_changes([record for record in old if cell_id(record)[:3] in scope], new)
    return texts, changes


def _group_by_file(path: Path, records: Iterable[Record]) -> dict[Path, list[Record]]:
    found: dict[Path, list[Record]] = {}
    for record in records:
        if record.error is not None:
            raise StoreError(f"{_describe(cell_id(record))} failed and can't be a reference: {record.error}")
        if PurePath(record.model).is_absolute():
            raise StoreError(f"a reference can't name {record.model}, a path of this machine; use a relative path")
        found.setdefault(reference_file(path, record.suite), []).append(record)
    return found


def reference_file(path: Path, suite: str) -> Path:
    """The file of a suite's references: `path` itself if it is a .jsonl file, else <suite>.jsonl in that folder."""
    return path if path.suffix == ".jsonl" else path / f"{suite}.jsonl"


def _to_line(record: Record) -> str:
    """A line of a reference file, without times and without paths of this machine."""
    provenance = {k: v for k, v in drop_times(record).provenance.items() if not PurePath(str(v)).is_absolute()}
    return to_line(replace(record, provenance=provenance)) + "\n"


def _list_changes(old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    """One line per cell that differs: `ci thermal own:mini clean on thermal-world: none -> 93.8 of n = 96 (...)`."""
    before, after = ({cell_id(record): record for record in records} for records in (old, new))
    lines = []
    for cell in dict.fromkeys([*after, *before]):
        scores = [_format_score(side[cell]) if cell in side else "none" for side in (before, after)]
        changed = cell not in before or cell not in after or _to_line(before[cell]) != _to_line(after[cell])
        lines += [f"{_describe(cell)}: {scores[0]} -> {scores[1]}"] if changed else []
    return lines


def _describe(cell: CellId) -> str:
    """A cell in words: `ci thermal own:mini clean on thermal-world`."""
    return f"{' '.join(cell[:4])} on {cell[4]}"


def _format_score(record: Record) -> str:
    share = 100 * (record.n_correct or 0) / record.n
    return f"{share:.1f} of n = {record.n} (protocol {str(record.provenance.get('protocol'))[:8]})"
