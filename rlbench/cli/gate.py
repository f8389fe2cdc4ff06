"""The regression gate: `rlbench check`, `compare`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlbench.cli.options import OneOf
from rlbench.cli.places import place_options
from rlbench.core.errors import StoreError

if TYPE_CHECKING:
    from rlbench.core import Record
    from rlbench.engine.run.runner import Progress
    from rlbench.gate.check import Ids
    from rlbench.gate.regression import Report

FORMATS = OneOf(["text", "github", "markdown", "json"])
TABLES = OneOf(["text", "markdown"])


@contextmanager
def show_progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Reports a run's progress on the terminal."""
    from rlbench.cli import console

    with console.progress(quiet=quiet) as advance:
        yield lambda p: advance(p.what, p.done, p.total, "" if p.left is None else f"{console.clock(p.left)} left")


@click.command(short_help="Compare a run with its reference records (regression gate).")
@click.option(
    "--suite", "suites", multiple=True, metavar="NAME|FILE.yaml", help="Run this suite; repeatable [default: ci]."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FOLDER",
    help="Check this model; repeatable [default: all that have references].",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Reference records: a .jsonl file or a folder of them [default: leaderboards/records, here or in rlbench].",
)
@click.option("--margin", default=2.0, show_default=True, metavar="POINTS", help="Allow a drop up to this.")
@click.option(
    "--alpha",
    default=0.05,
    show_default=True,
    metavar="P",
    help="Accept this chance of a failure although nothing changed.",
)
@click.option("--strict", is_flag=True, help="Fail also on a gain and on an inconclusive cell.")
@click.option(
    "--records",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Check these records instead of running.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="STORE", help="Keep the run in this store.")
@click.option("--format", "shape", type=FORMATS, default="text", show_default=True, help="The format of the result.")
@click.option("--update", is_flag=True, help="Make this run the reference and show what changed.")
@place_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
def check(
    suites: tuple[str, ...],
    models: tuple[str, ...],
    reference: Path | None,
    records: tuple[Path, ...],
    shape: str,
    update: bool,
    quiet: bool,
    margin: float,
    alpha: float,
    strict: bool,
    **options: Any,
) -> None:
    """Run a suite and compare every cell with its reference record, on the same examples.

    \b
      rlbench check --model mine --update    write the references to leaderboards/records/ci.jsonl
      rlbench check                          compare with them: exit 0 pass, 1 fail, 2 error

    A cell fails if it dropped by more than the margin and the drop is significant (exact McNemar test, Holm-adjusted
    over the cells). With --format github it annotates the pull request.
    """
    from rlbench.gate import check as gate
    from rlbench.gate.regression import Policy
    from rlbench.gate.regression import gate as judge

    policy = Policy(margin=margin, alpha=alpha, strict=strict)
    parts = gate.list_parts(suites or ((gate.SUITE,) if not records else ()))
    path = gate.find_references(reference)
    references = [] if update and (models or records) else gate.read_references(path)
    if update:
        _check_target(reference or gate.HERE, parts)
    if records:
        found, ids = _of_stores(records, parts, models)
        parts = parts or sorted({(record.suite, record.modality) for record in found})
        models = models or tuple(gate.list_names(references, parts))
    else:
        models = models or tuple(gate.list_models(references, parts))
        if not update:
            gate.check_models(references, parts, models)
        with show_progress(quiet) as report:
            found, ids = gate.measure(suites or (gate.SUITE,), models, report=report, **options)
    if update:
        _update(reference or gate.HERE, found)
        return
    _print(judge(references, found, policy, ids, gate.list_required(parts, models)), str(path), shape)


def _of_stores(
    paths: tuple[Path, ...], parts: list[tuple[str, str]], models: tuple[str, ...]
) -> tuple[list[Record], Ids]:
    """The records of these suites and models (empty: of all) in stores or .jsonl files, and their examples' ids."""
    from rlbench.encoders.models import default_name
    from rlbench.store.per_example import example_ids
    from rlbench.store.records import read_records
    from rlbench.store.store import Store

    names = {default_name(model) for model in models}
    records = read_records(paths)
    chosen = [r for r in records if (not parts or (r.suite, r.modality) in parts) and (not names or r.model in names)]
    if not chosen:
        raise StoreError("the records have nothing of these suites and models; `rlbench run` writes some")
    return chosen, {k: v for path in paths if path.is_dir() for k, v in example_ids(Store(path), chosen).items()}


def _check_target(path: Path, parts: list[tuple[str, str]]) -> None:
    """Raises StoreError before a run if its references can't be written, or the present ones not be read."""
    from rlbench.cli import files
    from rlbench.gate.check import reference_file
    from rlbench.store.records import read_records

    for file in {reference_file(path, suite) for suite, _ in parts}:
        files.check_writable(file)
        if file.is_file():
            read_records([file])


def _update(path: Path, records: list[Record]) -> None:
    from rlbench.cli import files
    from rlbench.gate.check import renew_references

    texts, changes = renew_references(path, records)
    for file, text in texts.items():
        files.write(file, text)
    for line in changes or ["nothing changed"]:
        click.echo(line)
    click.echo(f"wrote {', '.join(map(str, texts))}; commit it; `rlbench check` compares with it")


def _print(report: Report, against: str, shape: str) -> None:
    from rlbench.cli import console
    from rlbench.gate import render

    if shape == "text":
        render.text(report, against, console.console())
    elif shape == "json":
        click.echo(render.as_json(report))
    elif shape == "markdown":
        click.echo(render.markdown(report, against), nl=False)
    else:
        render.text(report, against, console.console())
        click.echo(render.workflow_commands(report), nl=False)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(summary, "a", encoding="utf-8") as file:
                file.write(render.markdown(report, against))
    raise click.exceptions.Exit(report.exit_code)


@click.command(short_help="Compare two models or two stores on the same examples.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--records",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A store or .jsonl file with the models' records; repeatable [default: rlbench-results].",
)
@click.option(
    "--suite", "suites", multiple=True, metavar="NAME|FILE.yaml", help="Compare only on this suite; repeatable."
)
@click.option("--format", "shape", type=TABLES, default="text", show_default=True, help="The format of the table.")
def compare(a: str, b: str, records: tuple[Path, ...], suites: tuple[str, ...], shape: str) -> None:
    """Compare A and B: each is a model with records, a store or a .jsonl file.

    Shows B - A in points with its 95% score interval, and the exact McNemar p, Holm-adjusted over the cells.
    """
    from rlbench.cli import console
    from rlbench.core.markdown import grid
    from rlbench.gate import render
    from rlbench.gate.compare import compare as contrast
    from rlbench.gate.compare import list_missing
    from rlbench.gate.regression import doubts
    from rlbench.gate.submission import Chosen
    from rlbench.store.records import read_records

    sides = [_side(name, records or (Path("rlbench-results"),), read_records) for name in (a, b)]
    named = [Chosen.parse(suite) for suite in suites]
    chosen = [[r for r in side if not named or any(one.has(r) for one in named)] for side in sides]
    if named and not any(chosen):
        there = ", ".join(sorted({record.suite for side in sides for record in side}))
        raise StoreError(f"{a} and {b} have no records of {', '.join(suites)}; suites there: {there}")
    found = contrast(*chosen)
    rows = render.contrasts(found, _short(a, b))
    if shape == "markdown":
        click.echo(grid(rows))
    else:
        render.table(rows, console.console())
    if (tests := sum(one.pairs is not None and not one.bound for one in found)) > 1:
        click.echo(
            f"note: p is Holm-adjusted over {tests} cells; intervals are not, so that one may exclude 0 at p > .05"
        )
    for line in (
        *list_missing(chosen[0], chosen[1], _short(a, b)),
        *doubts(record for side in chosen for record in side),
    ):
        click.echo(f"note: {line}")
    for suite, sources in dict.fromkeys((one.suite, one.sources) for one in found if one.sources):
        click.echo(f"note: the examples of {suite} share {sources} sources: p is too small, intervals too narrow")


def _side(name: str, stores: tuple[Path, ...], read: Callable[[list[Path]], list[Record]]) -> list[Record]:
    from rlbench.encoders.models import default_name

    path = Path(name)
    is_model = (path / "card.yaml").exists()  # a run folder has metrics.jsonl
    if path.suffix == ".jsonl" or (path.is_dir() and any(path.glob("*.jsonl")) and not is_model):
        return read([path])
    records = read(list(stores))
    own = [record for record in records if record.model in (name, default_name(name))]
    if not own:
        there = ", ".join(sorted({record.model for record in records})) or "none"
        where = ", ".join(map(str, stores))
        raise StoreError(f"{name} is neither a store nor a model with records in {where}; models there: {there}")
    return own


def _short(a: str, b: str) -> tuple[str, str]:
    """The headings of the two columns."""
    one, other = (name.rstrip("/").split("/")[-1] for name in (a, b))
    return (one, other) if one != other else ("A", "B")
