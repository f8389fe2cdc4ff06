"""`rlbench run` and `rlbench show`."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rlbench.cli.options import Count, OneOf
from rlbench.cli.places import place_options
from rlbench.cli.replies import reserve_stdout
from rlbench.cli.signals import exit_code, terminable
from rlbench.core.processes import processors, without_collection

if TYPE_CHECKING:
    from rlbench.engine.plan.types import Plan

LEAST = 256  # examples: a run of fewer may end before a second process has started


def _read_batch_size(context: click.Context, option: click.Parameter, value: str) -> int | str:
    """The value of --batch-size."""
    if value != "auto" and not (value.isdecimal() and int(value) > 0):
        raise click.BadParameter(f"{value!r} must be auto or a number, at least 1")
    return value if value == "auto" else int(value)


@click.command(short_help="Draw a picture of a suite's examples.")
@click.argument("suite", metavar="SUITE|FILE.yaml")
@click.option(
    "--model",
    default="rlbind",
    show_default=True,
    metavar="NAME|FOLDER",
    help="The model to attack and whose predictions to show.",
)
@click.option("--perturbation", metavar="COLUMN", help="Show this column of the suite, such as 'pgd linf 4/255'.")
@click.option(
    "--corruptions", is_flag=True, help="Show one example under all corruptions; for audio, also write WAV files."
)
@click.option("--examples", type=Count(1, 64), default=8, show_default=True, metavar="N", help="Number of examples.")
@click.option("--device", default="cpu", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the PNG to this file [default: SUITE.png].",
)
def show(
    suite: str, model: str, perturbation: str | None, corruptions: bool, examples: int, device: str, out: Path | None
) -> None:
    """Draw examples of SUITE: clean, perturbed and their difference, with labels and predictions.

    With --corruptions, or if the suite has only corruptions, draw one example by corruption and severity.
    """
    from rlbench.cli import files
    from rlbench.core.suite import load_suite

    chosen = load_suite(suite)
    out = out or Path(f"{chosen.name}.png")
    files.check_writable(out)
    from rlbench.report.figures import draw, sensor_sheets, sheets

    if corruptions or (perturbation is None and sheets.has_only_corruptions(chosen)):
        drawn = sheets.matrix(chosen, model, device=device)
        files.write(out, draw.draw_matrix(drawn))
        files.write_all(out.with_suffix(""), {f"{name}.wav": sound for name, sound in drawn.sounds.items()})
        sounds = f" and {len(drawn.sounds)} sounds in {out.with_suffix('')}/" if drawn.sounds else ""
        click.echo(f"{drawn.title}: {len(drawn.rows)} corruptions; wrote {out}{sounds}")
        return
    column = sheets.choose(chosen, perturbation)
    sheet = sheets.collect(chosen, model, column, examples, device=device)
    files.write(out, sensor_sheets.draw_sheet(sheet))
    right = sum(guess.correct for guess in sheet.clean)
    robust = sum(guess.correct for guess in sheet.perturbed)
    click.echo(
        f"{sheet.title}: {right} of {len(sheet.labels)} correct when clean, {robust} when perturbed; wrote {out}"
    )


@click.command(short_help="Run suites on models and show the robustness table.")
@click.option(
    "--suite", "suites", multiple=True, required=True, metavar="NAME|FILE.yaml", help="Run this suite; repeatable."
)
@click.option(
    "--model", "models", multiple=True, required=True, metavar="NAME|FOLDER", help="Run this model; repeatable."
)
@click.option("--examples", type=Count(1), metavar="N", help="Examples per cell [default: the suite's].")
@click.option("--budget", metavar="TIME", help="Use as many examples as fit in this time, such as 30s, 10m or 2h.")
@click.option("--seed", type=Count(0), metavar="N", help="Seed of the attacks and corruptions [default: the suite's].")
@click.option(
    "--series", type=Count(0), metavar="N", help="Use the N-th series of test examples of a procedural world."
)
@click.option(
    "--mode",
    type=OneOf(["standalone", "cascade", "descending"]),
    default="standalone",
    show_default=True,
    help="cascade: only the exact worst case, at less cost; descending: what survives an eps passes at smaller ones.",
)
@click.option(
    "--precision",
    type=OneOf(["fp32", "tf32", "bf16"]),
    help="Let attacks search in this precision [default: the suite's]; the judge and a last short search use float32.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="rlbench-results",
    show_default=True,
    metavar="STORE",
    help="Keep the results in this folder.",
)
@click.option("--fresh", is_flag=True, help="Discard the stored results of these cells and start over.")
@click.option(
    "--batch-size",
    callback=_read_batch_size,
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Examples per pass; auto is what fits a GPU, or 64 on a CPU. It is halved where memory runs out.",
)
@place_options
@click.option("--shard", metavar="I/N", help="Do only every N-th block of examples, from the I-th; see rlbench merge.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show the plan and its cost, and stop; data sets may be missing."
)
@click.option("--strict", is_flag=True, help="Exit 1 unless every cell is sound.")
@click.option("--quiet", is_flag=True, help="Show only the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as a JSON array, the rest to stderr.")
def run(
    suites: tuple[str, ...],
    models: tuple[str, ...],
    out: Path,
    dry_run: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run suites on models and show the robustness table.

    On a terminal the table fills while attacks run: an accuracy marked ≤ is an upper bound that still falls. Finished
    blocks in the store are not run again, so the same command resumes an interrupted run. Below each table is every
    model's soundness badge; a cell that is not sound is marked *. Exit 1 if a cell failed.
    """
    from rlbench.cli import console, live
    from rlbench.core.suite import load_suites
    from rlbench.encoders.models import resolve

    reply = reserve_stdout(click.get_current_context()) if as_json else None
    for model in models:  # mistakes in names are reported before torch is imported
        resolve(model)
    terminal = console.console(sys.stderr if as_json else None)
    _start_ahead(dry_run=dry_run, **options)
    with live.loading(quiet=quiet):
        with without_collection():  # torch takes seconds
            loaded = [suite for name in suites for suite in load_suites(name)]
            from rlbench.cli import plan_view
            from rlbench.engine.run import runner
        plan = runner.plan(loaded, models, store=out, pilot=dry_run, **options)
    if not quiet or dry_run:
        plan_view.plan(plan, terminal, by_cell=dry_run)
    if dry_run:
        if as_json:
            click.echo(console.cells_json(plan.cells), file=reply)
        return
    try:
        with terminable(), live.watch(terminal, quiet=quiet) as report:
            records = runner.execute(plan, report)
    except KeyboardInterrupt as error:
        _exit_interrupted(out, plan, exit_code(error))
    if as_json:
        click.echo(console.records_json(records), file=reply)
        console.doubts(records, terminal)
    else:
        console.results(records, terminal)
        _say_where(out, plan)
    if any(one.error is not None or (strict and one.provenance.get("soundness") != "sound") for one in records):
        raise click.exceptions.Exit(1)


def _start_ahead(*, dry_run: bool, workers: int | None, executor: str, examples: int | None, **others: object) -> None:
    """Starts a worker if the run will probably have several on this machine, by its options alone."""
    if not dry_run and executor == "local" and workers != 1 and processors() > 1 and (examples or LEAST) >= LEAST:
        from rlbench.executors.worker import start_ahead

        click.get_current_context().with_resource(start_ahead("rlbench.engine.run.jobs"))


def _say_where(out: Path, plan: Plan) -> None:
    join = f"shard {plan.shard}; join all shards: rlbench merge STORE... --out STORE"
    click.echo(f"\nrecords: {out} ({join if plan.shard else f'rlbench leaderboard --records {quote(str(out))}'})")


def _exit_interrupted(out: Path, plan: Plan, code: int) -> NoReturn:
    again = "the same command without --fresh" if plan.fresh else "the same command"
    click.echo(f"rlbench: interrupted; {out} has the finished blocks: {again} continues", err=True)
    raise click.exceptions.Exit(code) from None
