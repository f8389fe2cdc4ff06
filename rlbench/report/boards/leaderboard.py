"""Records -> boards in markdown, LaTeX, CSV and JSON, and the reference boards of the installation.

The same records give the same bytes, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path, PurePath
from typing import cast

import pandas as pd

from rlbench.core import Clean, Field, Modality, Record, Worst
from rlbench.core.errors import StoreError, UnknownName
from rlbench.encoders.models import is_path, resolve
from rlbench.report.boards import by_task, corruptions, formats, recall, reported, sensors
from rlbench.report.boards.averages import Sources, macros
from rlbench.report.boards.backbones import describe_mini
from rlbench.report.boards.latex import latex
from rlbench.report.boards.methods import report
from rlbench.report.boards.ranks import check_baseline
from rlbench.report.boards.tables import frame, tables
from rlbench.store.columns import reading_order
from rlbench.store.lines import to_line
from rlbench.store.per_example import examples
from rlbench.store.records import drop_times, read_records
from rlbench.store.rounds import of_rounds

__all__ = ["Board", "boards", "examples", "freeze", "load", "name_by_job", "render", "render_rounds"]
FORMATS = ("md", "latex", "csv", "json")

READING = (
    "Accuracy in %, with its Wilson 95% interval, or that of a bootstrap over sources (recordings, speakers) "
    "where examples share them and it is wider. `worst` counts an example as correct only if it is correct under "
    "every attack of that threat model. `k corruptions at s` is their mean at severity s; its interval takes n "
    "examples, not k n, which is the cautious choice. Rows are in order of the mean of the `worst` columns, or of all "
    "where there is none; a row that failed or lacks one of them stands below, without a rank. `≤` (columns "
    "`descending`) is a bound from above, which is never ranked. `anchors` are those of a model's own text tower."
)
STANDING = (
    "`rank` is the 95% interval of a row's rank, for all rows of a table at once: one row comes before another only "
    "where the exact paired test on the same examples says so, Holm-adjusted over all pairs. Overlapping ranks are "
    "ties. In bold: no other row is shown to be above in that column; a number that is `unreliable` or `needs "
    "adaptive` is never in bold. `minus` a baseline: points (examples that only the row gets right, or more often : "
    "only the baseline, p of that test, for one cell McNemar's, and Holm-adjusted over the column); where examples "
    "share sources, the tests count as many pairs as the wider interval stands for."
)
MACRO = (
    "Macro averages give each modality the same weight, and each suite within it; `robust` is the mean of the `worst` "
    "columns. Intervals are a bootstrap's over examples, stratified by suite, and widened where examples share sources."
)

ROUNDS = (
    "Each round has its own backbone or fine-tuning seed and its own test examples, which nobody looked at before. "
    "Accuracy in %, pooled over rounds, with its Wilson 95% interval (and the lowest and highest round). `robust` is "
    "the worst case per example over the attacks; `unseen` are the classes left out of fine-tuning. `passes`: forward "
    "and backward passes of training since the backbone, in thousands of examples. `sees`: what training saw of the "
    "unseen classes; rows that saw their examples are no strict hold-out, and not comparable with the others on them."
)


def load(paths: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """The records of result stores or .jsonl files as a tidy data frame, one row per cell (see `tables.frame`).

    Stores of several machines are merged, and a cell that occurs twice counts once. Cells are comparable only if they
    have the same data, anchors, protocol and seed, which are columns; `render` puts others into different tables.

    Args:
        paths: one or several stores, .jsonl files, or folders of such files.

    Raises:
        StoreError: a path is not a store, a line is not a record, or two stores have different results of one cell.
    """
    return frame(read_records([paths] if isinstance(paths, str | Path) else paths))


def render(
    cells: pd.DataFrame,
    title: str,
    *,
    baseline: str | None = None,
    format: str = "md",
    sources: Sources | None = None,
) -> str:
    """The board of a frame: one table for each comparable part, with its provenance.

    Args:
        cells: from `load`.
        title: its heading in markdown.
        baseline: a model or a method such as "languagebind"; tables that have it show the differences to it.
        format: "md", "latex" (for the package booktabs), "csv" (one line per cell, then per mean over tasks) or
            "json".
        sources: by data hash, the source of each example (see `per_example.sources`), for the macro averages.

    Raises:
        StoreError: a row has two records of one column.
        UnknownName: no table has the baseline, or there is no such format.
    """
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    found = tables(cells) if len(cells) else []
    if baseline:
        check_baseline(found, baseline)
    shown = [formats.prepare_table(table, baseline) for table in found]
    several = by_task.by_task(found)
    if format == "latex":
        return latex(shown, several)
    if format == "csv":
        return formats.as_csv(shown, by_task.mean_cells(several))
    means = macros(found, baseline=baseline, sources=sources)
    if format == "json":
        return formats.as_json(shown, means, baseline or "", by_task.mean_cells(several))
    parts = [f"# {title}", "<!-- Generated by `rlbench leaderboard`: change the records, not this file. -->"]
    mini = describe_mini(row.backbone for table in found for row in table.rows)
    parts += [mini] if mini else []
    parts += [READING, *([STANDING] if any(one.ranks for one in shown) else [])]
    parts += sensors.sections(found)
    parts += by_task.sections(found)
    parts += [*map(formats.markdown, shown), *recall.sections(cells), *corruptions.sections(cells)] or ["No records."]
    parts += [MACRO, *(formats.macro_markdown(one, baseline or "") for one in means)] if means else []
    return "\n\n".join(parts) + "\n"


def render_rounds(records: Iterable[Record], title: str, subject: str = "rlbind") -> str:
    """Markdown: training methods compared over rounds, and what that shows of the subject (see `methods.report`).

    Args:
        records: those without a round are ignored.
        title: its heading.
        subject: the method that is compared with each other one.

    Raises:
        StoreError: a cell failed, or methods of one round were tested in different ways.
    """
    kept = of_rounds(records)
    heading = [f"# {title}", "<!-- Generated by `rlbench leaderboard`: change the records, not this file. -->"]
    mini = describe_mini(record.backbone for record in kept)
    attacks = "; ".join(sorted({str(r.perturbation) for r in kept if not isinstance(r.perturbation, Clean | Worst)}))
    return (
        "\n\n".join(
            [*heading, *([mini] if mini else []), f"{ROUNDS} Attacks: {attacks}.", report(kept, subject=subject)]
        )
        + "\n"
    )


def freeze(records: Iterable[Record], runs: Path | None = None) -> str:
    """Records as the lines of a reference file: sorted, without times and without paths of this machine.

    Args:
        records: in any order.
        runs: folder of a campaign, whose runs ROUND/MODALITY/JOB are then named by their jobs (see `name_by_job`).

    Raises:
        StoreError: a model, suite or task is a path of this machine; or as `tables.tables`.
    """
    named = [drop_times(record) if runs is None else name_by_job(drop_times(record), runs) for record in records]
    kept = sorted(named, key=lambda record: (*reading_order(record), str(record.provenance.get("round"))))
    tables(frame(kept))
    return "".join(to_line(_make_portable(record)) + "\n" for record in kept)


def name_by_job(record: Record, runs: Path) -> Record:
    """A record of a campaign's run, with the job as its model; the record itself if its model is no such run.

    Its provenance gets the training seed, the passes of training, what training saw of the unseen classes and, if the
    test examples are a series of their own, the round. Runs on the same test examples are not independent rounds.

    Args:
        record: its model is the path of a run.
        runs: folder of the campaign.
    """
    try:
        _, modality, job = Path(record.model).resolve().relative_to(runs.resolve()).parts
    except ValueError:
        return record
    weights = resolve(record.model).weights
    trained = (weights.get(cast(Modality, modality)) or next(iter(weights.values()))).trained  # trained together: alike
    facts: dict[str, Field] = {"training_seed": trained.get("seed")}
    if "series" in record.provenance:
        facts["round"] = str(record.provenance["series"])
    passes = trained.get("since") or {}
    facts |= {f"training_{name}": passes.get(name, 0) for name in ("forwards", "backwards")}
    facts |= {"sees": "; ".join(trained.get("sees", []))}
    return replace(record, model=f"{job}:{record.backbone}", provenance={**record.provenance, **facts})


def _make_portable(record: Record) -> Record:
    """The record without absolute paths in its provenance. Raises: StoreError: its model, suite or task is a path."""
    for what, text in (("model", record.model), ("suite", record.suite), ("task", record.task)):
        if is_path(text):
            raise StoreError(
                f"a reference record can't have the {what} {text}, which is a path of this machine; install it first "
                "and run it under its name"
            )
    portable = {k: v for k, v in record.provenance.items() if not PurePath(str(v)).is_absolute()}
    return replace(record, provenance=portable)


@dataclass(frozen=True)
class Board:
    """A board of the installation.

    Attributes:
        name: such as "mini".
        records: file of its reference records.
        page: the markdown file that is made from them.
    """

    name: str
    records: Path
    page: Path

    def text(self) -> str:
        """The markdown of its records. Raises: StoreError: as `load` and `render`."""
        title, records = f"Leaderboard: {self.name}", read_records([self.records])
        if self.name == reported.NAME:
            return reported.render(self.page.with_name(reported.REPORTED), records)
        if of_rounds(records):
            return render_rounds(records, title)
        having = any(record.model.partition(":")[0] == corruptions.BASELINE for record in records)
        return render(frame(records), title, baseline=corruptions.BASELINE if having else None)

    def stale(self) -> bool:
        """Whether the page is missing or differs from the markdown of its records."""
        return not self.page.is_file() or self.page.read_bytes() != self.text().encode()


def boards() -> list[Board]:
    """The boards in `leaderboards/`, of the source tree in an editable install, otherwise of the installed package."""
    home = Path(str(files("rlbench.leaderboards")))
    found = sorted((home / "records").glob("*.jsonl"))
    return [Board(path.stem, path, home / f"{path.stem}.md") for path in found]


def is_checkout(board: Board) -> bool:
    """Whether the board is part of a source tree; the files of an installed package are never changed."""
    return (board.page.parent.parent / "pyproject.toml").is_file()
