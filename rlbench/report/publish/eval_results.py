"""A model's results as `.eval_results/*.yaml`, which the hub shows beside a model and ranks beside a data set.

Format: https://huggingface.co/docs/hub/eval-results. A task there has one number, so each norm and eps is a task:
`thermal_clean`, `thermal_linf_4_255` (see `task_ids`). A value is an accuracy in %; of several tasks, their mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rlbench.core import Adversarial, Record, Suite, Worst
from rlbench.core.errors import FieldError, StoreError, UnknownName, quote
from rlbench.core.suite import load_suites, suites
from rlbench.core.threat import threat_of
from rlbench.encoders.models import default_name
from rlbench.report.boards.by_task import TaskTable, by_task
from rlbench.report.boards.scores import ModelRow, Score, Table
from rlbench.report.boards.tables import frame, tables
from rlbench.report.publish.task_ids import Part, list_task_ids, name_suites, task_id
from rlbench.store.columns import Column
from rlbench.store.rounds import pool_rounds

FOLDER = ".eval_results"
UNRELIABLE = "unreliable"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Benchmark:
    """The data set on the hub whose tasks the results are of.

    Attributes:
        id: OWNER/NAME.
        revision: a commit; "" for none.
    """

    id: str
    revision: str = ""


@dataclass(frozen=True)
class Entries:
    """The results of a model.

    Attributes:
        files: the text of each file, by its path in the repository; one file per suite.
        left_out: what has no entry, and why, a line each.
    """

    files: dict[str, str]
    left_out: list[str]


def parse_repository(text: str) -> Benchmark:
    """OWNER/NAME or OWNER/NAME@COMMIT. Raises: FieldError."""
    if not _REPOSITORY.fullmatch(text):
        raise FieldError(f"{quote(text)} is not a repository on the hub: it must be OWNER/NAME or OWNER/NAME@COMMIT")
    name, _, revision = text.partition("@")
    return Benchmark(name, revision)


def check_repository(text: str) -> None:
    """Raises: FieldError: it is not OWNER/NAME."""
    if "@" in text:
        raise FieldError(f"{quote(text)} names a commit; a pull request goes to OWNER/NAME")
    if not _REPOSITORY.fullmatch(text):
        raise FieldError(f"{quote(text)} is not a repository on the hub: it must be OWNER/NAME, such as me/my-clip")


def make_entries(records: Sequence[Record], model: str, benchmark: Benchmark, source: str = "") -> Entries:
    """The results of a model.

    Args:
        records: those of other models are ignored; rounds are pooled.
        model: its name, with or without the backbone.
        benchmark: the data set whose tasks they are of.
        source: a URL of the records or of a page about them; "" for none.

    Raises:
        UnknownName: there is no record of the model.
        StoreError: two results have one task, or none has any.
    """
    listed = pool_rounds(records)
    own = [record for record in listed if record.model in (model, default_name(model))]
    if not own:
        raise UnknownName("model in these records", model, {record.model for record in listed})
    found: dict[str, dict[str, Any]] = {}
    entries: dict[str, list[dict[str, Any]]] = {}
    left_out: list[str] = []
    starts = _name_parts(listed)
    for table in _join_tasks(tables(frame(own)), left_out):
        suite, part = str(table.facts["suite"]), _part_of(table)
        for column, score in _choose_columns(table, left_out):
            name = str(task_id(starts[suite][part], column.of))
            if name in found:
                raise StoreError(
                    f"the records have two results of {name} (also {_describe(table, column, score)}); "
                    "give --records of one run only"
                )
            dataset = {"id": benchmark.id, "task_id": name}
            found[name] = {
                "dataset": {**dataset, "revision": benchmark.revision} if benchmark.revision else dataset,
                "value": round(100 * score.share, 2),
                **({"source": {"url": source, "name": "rlbench records"}} if source else {}),
                "notes": _describe(table, column, score),
            }
            entries.setdefault(suite, []).append(found[name])
    if not found:
        raise StoreError(f"no result of {model} can be published: {'; '.join(left_out[:3]) or 'they have no task'}")
    files = {f"{FOLDER}/rlbench-{suite}.yaml": _dump(one) for suite, one in entries.items()}
    return Entries(files, left_out)


def _join_tasks(found: Sequence[Table], left_out: list[str]) -> list[Table]:
    """The tables, those of a suite of several tasks as one of their means; suites with missing tasks are left out."""
    several = by_task(found)
    joined = [member.facts for one in several for member in one.members]
    groups = [(one.members, _mean_table(one, left_out)) for one in several]
    groups += [((table,), table) for table in found if table.facts not in joined]
    kept = []
    for members, table in groups:
        facts = table.facts
        ran = {member.facts["task"] for member in members}
        tasks = _list_tasks(str(facts["suite"]), str(facts["modality"]))
        missing = [task for task in tasks if task not in ran]
        if missing:
            left_out.append(
                f"{facts['suite']}: {len(missing)} of its {len(tasks)} tasks were not run, {missing[0]} first"
            )
        else:
            kept.append(table)
    return kept


def _part_of(table: Table) -> Part:
    return Part.of(str(table.facts["modality"]), str(table.facts["task"]))


def _name_parts(records: Sequence[Record]) -> dict[str, dict[Part, str]]:
    """By suite and part, what the ids begin with; all models count, since some may lack a sensor."""
    found: dict[str, list[Part]] = {}
    for record in records:
        found.setdefault(record.suite, []).append(Part.of(record.modality, record.task))
    return {suite: name_suites(suite, parts) for suite, parts in found.items()}


def _list_tasks(suite: str, modality: str) -> list[str]:
    """The tasks of an installed suite of several tasks of a modality, of which a mean is made; none of another one."""
    if "+" in modality or suite not in {info.name for info in suites()}:
        return []
    found = [one.task_name for one in load_suites(suite) if one.modality == modality]
    return found if len(found) > 1 else []


def _mean_table(one: TaskTable, left_out: list[str]) -> Table:
    """A table of means; a column without one is added to `left_out`."""
    facts = dict(one.members[0].facts)
    numbers = " or ".join(sorted({str(member.facts["n"]) for member in one.members}, key=int))
    facts |= {"n": f"{numbers} on each of {len(one.tasks)} tasks", "task": f"mean of {len(one.tasks)} tasks"}
    rows = tuple(ModelRow(model, 0, means) for model, means in one.means.items())
    for row in rows:
        lacking = [column for column in one.columns if column not in row.scores]
        left_out += [f"{one.suite}, {column}: it is missing or failed on some of its tasks" for column in lacking]
    return Table(facts, one.columns, rows, "")


def _dump(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def _choose_columns(table: Table, left_out: list[str]) -> Iterator[tuple[Column, Score]]:
    """The columns of a model's table that become entries; what could, but does not, is added to `left_out`.

    A threat model without a worst case counts if a single attack was run; its notes name it.
    """
    worst = {threat_of(column.of) for column in table.columns if isinstance(column.of, Worst) and column.is_worst}
    single = [threat_of(column.of) for column in table.columns if isinstance(column.of, Adversarial)]
    for row in table.rows:
        for column, score in row.scores.items():
            if isinstance(column.of, Adversarial) and threat_of(column.of) in worst:
                continue
            if task_id("", column.of) is None:
                continue
            reason = ""
            if score.error is not None:
                reason = f"it failed: {score.error}"
            elif score.bound:
                reason = "it is only an upper bound"
            elif score.soundness == UNRELIABLE:
                reason = "a soundness check failed"
            elif isinstance(column.of, Adversarial) and single.count(threat_of(column.of)) > 1:
                reason = "it is one of several attacks whose worst case was not computed"
            if reason:
                left_out.append(f"{_name(table)}, {column}: {reason}")
            else:
                yield column, score


def _name(table: Table) -> str:
    """The suite, with the task of several sensors, which names their fusion."""
    return f"{table.facts['suite']}{':' + str(table.facts['task']) if table.has_sensors else ''}"


def _describe(table: Table, column: Column, score: Score) -> str:
    """The notes of an entry: what was measured, on how many examples, and how certain it is."""
    facts = table.facts
    parts = [
        f"{column}",
        f"suite {_name(table)} v{facts['suite_version']}",
        f"n = {facts['n']}",
        f"95% interval {100 * score.low:.1f} to {100 * score.high:.1f}",
        f"soundness {score.soundness or 'not checked'}",
        "zero-shot accuracy in %, measured with rlbench",
    ]
    return "; ".join(parts)


def make_benchmark(suites: Sequence[Suite], name: str, description: str) -> str:
    """The eval.yaml of a data set that is a benchmark: its tasks are those of some suites.

    Args:
        suites: their parts; those of one suite have its name.
        name: the title of the benchmark.
        description: one line.

    Raises: StoreError: two suites have one name, so that their tasks have the same ids.
    """
    parts = {suite.name: [one for one in suites if one.name == suite.name] for suite in suites}
    if twice := next((one for one, own in parts.items() if len({suite.path for suite in own}) > 1), None):
        files = " and ".join(sorted({str(suite.path) for suite in parts[twice]}))
        raise StoreError(f"{files} are both named {twice}, so their tasks have the same ids; rename one of them")
    tasks = [{"id": one, "config": "default", "split": "test"} for own in parts.values() for one in list_task_ids(own)]
    return _dump({"name": name, "description": description, "evaluation_framework": "rlbench", "tasks": tasks})
