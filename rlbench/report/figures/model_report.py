"""A model's results as a section of its model card: soundness, tables, curves and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlbench.core import Record
from rlbench.core.badges import is_doubtful, worst_badge
from rlbench.core.errors import StoreError, UnknownName
from rlbench.core.markdown import escape, grid
from rlbench.core.suite import suites
from rlbench.encoders.models import default_name
from rlbench.report.boards import by_task, recall, sensors
from rlbench.report.boards.backbones import describe_mini
from rlbench.report.boards.badges import lines
from rlbench.report.boards.heads import describe_columns
from rlbench.report.boards.scores import Table
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.plots import draw
from rlbench.store.records import check_namesakes
from rlbench.store.rounds import pool_rounds

MEANINGS = {
    "": "not checked",
    "sound": "the soundness checks of the run passed",
    "warn": "a soundness check gave a warning",
    "needs adaptive": "the encoder has a trait that needs an adaptive attack: the numbers may be too high",
    "unreliable": "a soundness check failed: the numbers may be too high",
}
FACTS = ("checkpoint", "data", "anchors", "prompts", "seed", "series", "rlbench", "torch", "device")


@dataclass(frozen=True)
class ModelReport:
    """A model's report.

    Attributes:
        text: markdown, which names the picture.
        picture: the curves as a PNG; None if no attack has two eps.
    """

    text: str
    picture: bytes | None


def report(records: Sequence[Record], model: str, picture: str, *, series: int | None = None) -> ModelReport:
    """The report of a model over all its records.

    Args:
        records: those of other models are ignored; rounds are pooled.
        model: its name, with or without the backbone.
        picture: the file name that the text gives to the curves.
        series: only results on this series of a procedural world's test examples, as in `rlbench run`; None for all.

    Raises:
        UnknownName: there is no record of the model.
        StoreError: they are of two models of that name, or none is of the series.
    """
    listed = pool_rounds(_choose_series(records, model, series))
    own = [record for record in listed if _is_of(record, model)]
    if not own:
        raise UnknownName("model in these records", model, {record.model for record in listed})
    check_namesakes(own)
    found = tables(frame(own))
    drawn = next(iter(draw(own, kinds=("curves",)).values()), None)
    badge = worst_badge(str(record.provenance.get("soundness") or "") for record in own)
    parts = [
        "## Robustness",
        f"Measured with rlbench as `{own[0].model}`. Zero-shot accuracy in %, with its 95% interval; worst: correct "
        "under every attack of that size or a smaller one.",
        f"**Soundness: {badge or 'unknown'}** ({MEANINGS.get(badge, badge)}).",
        *sensors.sections(found),
        *by_task.sections(found),
        *(part for table in found for part in _section(table, own)),
        *([f"![Accuracy against the size of the attack, with 95% bands]({picture})"] if drawn else []),
        *recall.sections(frame(own)),
        *filter(None, [describe_mini(record.backbone for record in own)]),
        "### Provenance",
        grid([_provenance(table, own) for table in found]),
        *_commands(found, own),
    ]
    return ModelReport("\n\n".join(parts) + "\n", drawn)


def _is_of(record: Record, model: str) -> bool:
    return record.model in (model, default_name(model))


def _choose_series(records: Sequence[Record], model: str, series: int | None) -> list[Record]:
    """The records on a series, or all for None. Raises: StoreError: the model has records, but none on the series."""
    if series is None:
        return list(records)
    known = sorted({_series_of(record) for record in records if _is_of(record, model)})
    if known and series not in known:
        raise StoreError(
            f"{model} has no results on series {series}; these records have {', '.join(map(str, known))}: choose one "
            "of them, or leave out --series"
        )
    return [record for record in records if not known or _series_of(record) == series]


def _series_of(record: Record) -> int:
    """The series of test examples of a record; 0 for tasks that have one set of them."""
    return int(str(record.provenance.get("series") or 0))


def _section(table: Table, records: Sequence[Record]) -> list[str]:
    """A heading, a line per column, and the reason where the numbers are in doubt."""
    scores = table.rows[0].scores
    columns = [column for column in table.columns if column in scores]
    rows = []
    for column, head in zip(columns, describe_columns(columns), strict=True):
        percent, _, interval = str(scores[column]).partition(" [")
        under = f"{head.name}, {head.detail}" if head.detail else head.name
        rows.append(
            {"under": under, "accuracy": percent, "95% interval": interval.rstrip("]").replace(", ", " to ") or "-"}
        )
    doubts = [line for line in lines(table, records) if is_doubtful(table.rows[0].soundness)]
    notes = [*(f"failed: {line}" for line in table.failures), *table.notes, *doubts]
    about = f"### {escape(table.title)}, n = {table.facts['n']}"
    return [about, grid(rows), *(["\n".join(f"- {escape(note)}" for note in notes)] if notes else [])]


def _records_of(table: Table, records: Sequence[Record]) -> list[Record]:
    keys = {key for score in table.rows[0].scores.values() for key in score.keys}
    return [record for record in records if record.key in keys]


def _provenance(table: Table, records: Sequence[Record]) -> dict[str, str]:
    """The hashes, versions and devices of a table's records."""
    own = [record.provenance for record in _records_of(table, records)]
    found = {"suite": f"{table.facts['suite']} v{table.facts['suite_version']}"}
    for name in FACTS:
        values = sorted({str(facts[name]) for facts in own if facts.get(name) not in (None, "")})
        found |= {name: ", ".join(value[:16] for value in values)} if values else {}
    return found


def _commands(found: Sequence[Table], records: Sequence[Record]) -> list[str]:
    """How to measure again; tables of pooled rounds are left out, since each round has other examples and weights.

    A suite that is not installed is somebody's file: records have its name, which is by custom the file's.
    """
    installed = {info.name for info in suites()}
    lines_ = []
    for table in (table for table in found if "(round" not in str(table.facts["data"])):
        facts = table.facts
        suite = f"{facts['suite']}{'' if facts['suite'] in installed else '.yaml'}"
        seed = f" --seed {facts['seed']}" if facts["seed"] else ""
        series = "".join(f" --series {n}" for n in sorted({*map(_series_of, _records_of(table, records))} - {0}))
        command = f"rlbench run --suite {suite} --model {records[0].model}"
        lines_.append(f"{command} --examples {facts['n']}{seed}{series}")
    return ["To measure again:", "```sh\n" + "\n".join(dict.fromkeys(lines_)) + "\n```"] if lines_ else []
