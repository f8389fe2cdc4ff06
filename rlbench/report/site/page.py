"""Records -> one self-contained HTML page: tables, curves, heat maps, and the examples of every cell.

The page contains its scripts, data and pictures and sends no requests; its content security policy forbids them. The
same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlbench.core import Record
from rlbench.core.badges import worst_badge
from rlbench.report.boards import corruptions, formats, heads, leaderboard, recall, sensors
from rlbench.report.boards.averages import Macro, macros
from rlbench.report.boards.backbones import describe_mini
from rlbench.report.boards.by_task import READING, TaskTable, by_task
from rlbench.report.boards.ranks import baseline_row, check_baseline
from rlbench.report.boards.scores import Score, Table, describe_distinction, distinguish_task, mark_name
from rlbench.report.boards.tables import COMPARABLE, frame, tables
from rlbench.report.figures import curves
from rlbench.store.columns import Column, reading_order
from rlbench.store.per_example import sources
from rlbench.store.perturbations import is_bound, to_mapping
from rlbench.store.records import read_records
from rlbench.store.rounds import pool_rounds

if TYPE_CHECKING:
    from rlbench.report.site.thumbnails import Picture, Report

LIBRARY, LICENCE = "dataTables-3.1.5.min.js", "dataTables-LICENSE.txt"  # https://datatables.net, from npm, MIT
ASSETS = (LIBRARY, LICENCE, "charts.js", "page.js", "page.css")
# Shown already, by the data hash and the intervals.
_HIDDEN = {"round", "clustered_low", "clustered_high", "certified_low", "certified_high"}


def _ignore(what: str, done: int, total: int) -> None:
    """Reports nothing."""


def render(
    paths: Sequence[str | Path],
    *,
    baseline: str | None = None,
    pictures: int = 0,
    report: Report = _ignore,
    title: str = "",
    home: str = "",
) -> str:
    """The page of result stores, .jsonl files, or folders of such files.

    Args:
        paths: to read; rounds of a campaign are pooled (see `store.rounds.pool_rounds`).
        baseline: a model or method that differences are to; by default languagebind, if it is among the models.
        pictures: how many examples to draw of each cell, which runs its attack again; cells whose model or data differ
            here, or can't be loaded, get none.
        report: called with the cell that is being drawn, the number of cells that are done, and the number of all.
        title: the name of the board; "" for none.
        home: the address of a page with all boards, which this page links to; "" for none.

    Raises:
        StoreError: as `leaderboard.load`.
        UnknownName: no table has the baseline.
    """
    read = read_records(paths)
    records = pool_rounds(read)
    drawn: dict[str, list[Picture]] = {}
    if pictures:
        from rlbench.report.site.thumbnails import draw_pictures  # needs torch

        drawn = draw_pictures(records, pictures, report)
    return _fill(_data(records, baseline, sources(read, paths), drawn), title, home)


def _fill(data: Mapping[str, Any], title: str, home: str) -> str:
    """The template with its scripts, its styles and the data."""
    folder = files("rlbench.report.site") / "templates"
    text = {name: (folder / name).read_text(encoding="utf-8") for name in ASSETS}
    environment = Environment(
        loader=PackageLoader("rlbench.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    as_json = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return environment.get_template("page.html.j2").render(
        library=text[LIBRARY],
        licence=text[LICENCE],
        scripts=[text["charts.js"], text["page.js"]],
        style=text["page.css"],
        data=as_json.replace("<", "\\u003c"),
        reading=(leaderboard.READING, leaderboard.STANDING, *_readings(data)),
        version=version("rlbind-bench"),
        title=title,
        home=home,
    )


def _readings(data: Mapping[str, Any]) -> list[str]:
    """How to read the averages and the tables of several sensors that the page has."""
    texts = {"suites": leaderboard.MACRO, "tasks": READING}
    found = [text for over, text in texts.items() if any(mean["over"] == over for mean in data["macros"])]
    return found + ([sensors.READING] if data["together"] else [])


def _data(
    records: Sequence[Record], baseline: str | None, shared: Mapping[str, Sequence[str]], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """All data of the page: tables, whose cells refer to records by index; records; macro averages; colours.

    Args:
        records: of all tables.
        baseline: as for `render`.
        shared: by data hash, the source of each example, for the macro averages.
        drawn: pictures by key of their record.
    """
    records = sorted(records, key=reading_order)  # as the frame's rows are
    cells = frame(records)
    found = tables(cells) if records else []
    if baseline:
        check_baseline(found, baseline)
    elif any(baseline_row(table, corruptions.BASELINE) for table in found):
        baseline = corruptions.BASELINE
    shown = [formats.prepare_table(table, baseline) for table in found]
    numbers: dict[tuple[object, ...], dict[str, int]] = {}
    for k, record in enumerate(records):
        numbers.setdefault((record.suite, record.suite_version, record.key), {})[record.model] = k
    lows, highs = ([round(float(v), 5) for v in cells[end]] if records else [] for end in ("low", "high"))
    heats = curves.heats(cells) if records else []
    own = [_table(one, numbers, heats) | _surroundings(one.table, found) for one in shown]
    listed = [_record(r, drawn.get(r.key, ())) | {"lo": lows[k], "hi": highs[k]} for k, r in enumerate(records)]
    _hoist(own, listed)
    means = [_macro(one) for one in macros(found, baseline=baseline, sources=shared)]
    means += [_task_means(one) for one in by_task(found) if any(one.means.values())]
    models = curves.colours([*(r.model for r in records), *(row.model for table in found for row in table.rows)])
    shown_below = {"together": _together(sensors.sensor_tables(found)), "macros": means}
    return {"tables": own, "records": listed, **shown_below, "colours": models, "baseline": baseline or ""}


def _score(score: Score) -> dict[str, Any]:
    """A score: `v` its share, `lo` and `hi` its interval, `b` whether it is an upper bound."""
    found = {"v": round(score.share, 5), "lo": round(score.low, 5), "hi": round(score.high, 5)}
    return found | ({"b": True} if score.bound else {})


def _table(
    one: formats.Shown, numbers: Mapping[tuple[object, ...], Mapping[str, int]], heats: Sequence[curves.Heat]
) -> dict[str, Any]:
    """A table.

    Args:
        one: with its statistics.
        numbers: by suite, version and key, the index of the record of each model.
        heats: of all tables.
    """
    table, facts = one.table, one.table.facts

    def cell(k: int, column: Column, score: Score) -> dict[str, Any]:
        """A score with `r` its records, `e` its error, `best` if it is bold, `d` the difference to the baseline."""
        by_model = [numbers[facts["suite"], facts["suite_version"], key] for key in score.keys]
        model = table.rows[k].model.partition(" (")[0]  # without the hashes that make it unique
        found = _score(score) | {"r": [by.get(model, min(by.values())) for by in by_model]}
        minus = one.minus.get(k, {}).get(column)
        extra = {"e": score.error, "best": one.bold(k, column), "d": minus and str(minus)}
        return found | {name: value for name, value in extra.items() if value}

    rows = [
        {
            "model": row.model,
            **{name: getattr(row, name) for name in ("n", "backbone", "anchors", "warning")},
            "rank": one.ranks and one.ranks[k],
            "badge": one.soundness(k),
            "cells": {column: cell(k, column, score) for column, score in row.scores.items()},
        }
        for k, row in enumerate(table.rows)
    ]
    return {
        "title": table.title,
        "apart": describe_distinction(table.facts, table.apart).removeprefix(", "),
        **{name: facts[name] for name in COMPARABLE},
        "baseline": one.baseline,
        "columns": table.columns,
        "heads": [
            *(heads.Head(name, "", heads.BEFORE[name]) for name in one.before),
            *heads.describe_columns(table.columns),
        ],
        "rows": rows,
        "notes": one.notes,
        "before": one.before,
        "backbone": table.backbone,
        "made": f"{formats.hashes(one)} · {table.made_with}",
        "curves": [_curves(found) for found in curves.curves(table) if found.models],
        "scatters": [_scatter(found) for found in curves.scatters(table)],
        "heat": next((dict(heat.models) for heat in heats if heat.facts == facts), None),
    }


def _surroundings(table: Table, found: Sequence[Table]) -> dict[str, Any]:
    """A table's name among those of its suite, the note about its backbone, and its figure of several sensors.

    Args:
        table: to be shown.
        found: all tables of the page.
    """
    return {
        "part": distinguish_task(table, found),
        "mini": describe_mini(row.backbone for row in table.rows).replace("`", ""),
        "attacked": [_curves(one) for one in curves.attacked_sensors(table)],
    }


def _curves(found: curves.Curves) -> dict[str, Any]:
    models = {name: [{"x": eps, **_score(score)} for eps, score in points] for name, points in found.models.items()}
    return {"what": found.what, "norm": found.norm, "unit": found.unit, "models": models, "names": found.names}


def _scatter(found: curves.Scatter) -> dict[str, Any]:
    return {"column": found.column, "models": {m: [_score(x), _score(y)] for m, (x, y) in found.models.items()}}


def _macro(one: Macro) -> dict[str, Any]:
    """A macro average, with its differences as text."""
    rows = [
        [
            mark_name(model, worst_badge(s.soundness for s in scores.values())),
            {name: _score(s) for name, s in scores.items()},
        ]
        for model, scores in one.rows.items()
    ]
    minus = {m: {name: formats.format_difference(score) for name, score in by.items()} for m, by in one.minus.items()}
    facts = ("family", "backbone", "suites", "modalities", "partial")
    return {name: getattr(one, name) for name in facts} | {"over": "suites", "rows": rows, "minus": minus}


def _task_means(one: TaskTable) -> dict[str, Any]:
    """The means of a suite's tasks, as a macro average; the model with most columns first, which names them."""
    order = sorted(one.means, key=lambda model: (-len(one.means[model]), model))
    rows = [
        [mark_name(model, worst_badge(s.soundness for s in own.values())), {c: _score(s) for c, s in own.items()}]
        for model in order
        if (own := one.means[model])
    ]
    facts = {"family": one.suite, "backbone": "", "suites": one.tasks, "partial": ()}
    return facts | {"modalities": [one.members[0].facts["modality"]], "over": "tasks", "rows": rows, "minus": {}}


def _together(found: Sequence[sensors.SensorTable]) -> list[dict[str, Any]]:
    """By suite with several sensors, the summary of models and fusions, and what it says of the fusions."""
    rows = {group: sensors.summary(those) for group, those in sensors.groups(found).items()}
    said = {group: sensors.verdicts(those) for group, those in sensors.groups(found).items()}
    return [
        {"title": group, "head": list(own[0]), "rows": [list(row.values()) for row in own], "said": said[group]}
        for group, own in rows.items()
    ]


def _record(record: Record, drawn: Sequence[Picture]) -> dict[str, Any]:
    """What the dialog of a cell shows; `facts` is its provenance."""
    names = ("suite", "modality", "model", "n", "n_correct", "error", "flags", "forwards", "backwards")
    found = {name: value for name in names if (value := getattr(record, name)) is not None}
    found |= {"perturbation": str(record.perturbation), **to_mapping(record.perturbation)}
    known = {"n": record.n, "task": record.task, **record.provenance}
    shown = recall.recalls(known, record.perturbation)
    recalled = {name: f"{text} %" if "R@" in name else text for name, text in shown.items()}
    facts = {k: v for k, v in record.provenance.items() if not recall.RECALL.match(k)} | {
        "key": record.key,
        **recalled,
    }
    found |= {"b": True} if is_bound(record.perturbation) else {}
    found["soundness"] = str(facts.pop("soundness", None) or "")
    found |= {"doubts": d} if (d := heads.explain_failures(str(facts.pop("soundness_failed", None) or ""))) else {}
    found["facts"] = {k: v for k, v in sorted(facts.items()) if k not in _HIDDEN and v not in (None, "")}
    return found | ({"pictures": [asdict(picture) for picture in drawn]} if drawn else {})


def _hoist(own: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> None:
    """Moves facts that all records of a table share from the records to the table, to make the page smaller."""
    for number, table in enumerate(own):
        members = [records[k] for row in table["rows"] for cell in row["cells"].values() for k in cell["r"]]
        common = set.intersection(*(set(member["facts"].items()) for member in members)) if members else set()
        table["facts"] = dict(sorted(common))
        for member in members:
            member["table"] = number
        for member in members:
            member["facts"] = {k: v for k, v in member["facts"].items() if (k, v) not in common}
