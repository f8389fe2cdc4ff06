"""The commands that train: `rlbench train`, `rlbench campaign`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import click

from rlbench.cli.options import Count
from rlbench.cli.places import place_options

DIGITS = 18  # of an integer in --set, as in YAML


_log_with = click.option(
    "--log-with",
    multiple=True,
    metavar="wandb|trackio|tensorboard|mlflow",
    help="Log to this tracker; repeatable.",
)


@click.command(short_help="Train a method; the run folder works as a model name.")
@click.argument("method", metavar="METHOD[:BACKBONE]")
@click.option("--stage", type=Count(1), metavar="N", help="Train this stage [default: the last].")
@click.option(
    "--modality", "modalities", multiple=True, metavar="NAME", help="Train this modality; repeatable [default: all]."
)
@click.option("--suite", metavar="NAME|FILE.yaml", help="Train on the train split of this suite's task.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field of the recipe, such as epochs=1; repeatable.",
)
@click.option("--together", is_flag=True, help="Train all modalities in turn, step by step, with shared class means.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run folder [default: rlbench-runs/METHOD-k]."
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
@_log_with
@click.option("--group", default="", metavar="NAME", help="The group of the run in the trackers.")
@click.option("--run-name", default="", metavar="NAME", help="Its name in the trackers [default: the run folder's].")
@click.option("--dry-run", is_flag=True, help="Check everything, show the steps and the estimated time, and stop.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def train(
    method: str,
    stage: int | None,
    modalities: tuple[Any, ...],
    suite: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    log_with: tuple[str, ...],
    group: str,
    run_name: str,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train METHOD (languagebind, fare, tecoa, rlbind, ...) by its recipe.

    The run folder works as a model name. The same command with --out resumes an interrupted run. On several GPUs:
    accelerate launch --multi_gpu -m rlbench train METHOD ...
    """
    from rlbench.training.data import load_train_suite
    from rlbench.training.rehearsal import rehearse
    from rlbench.training.trackers import Tracking, check_trackers

    check_trackers(log_with)
    name, _, backbone = method.partition(":")
    arguments: dict[str, Any] = {
        "modalities": modalities or None,
        "stage": stage,
        "backbone": backbone or "mini",
        "suite": load_train_suite(suite) if suite else None,
        "overrides": _settings(settings),
        "announce": lambda line: None if quiet else click.echo(line, err=True),
        **options,
    }
    if dry_run:
        for line in rehearse(name, out=out, **{**arguments, "announce": lambda line: None}):
            click.echo(line)
        return
    free = (Path("rlbench-runs", f"{name}-{k}") for k in count(1))
    arguments["tracking"] = Tracking(log_with, group, run_name)
    folder = _train(name, out or next(path for path in free if not path.exists()), quiet, arguments)
    shown = suite or (modalities or ("thermal",))[0]
    if os.environ.get("RANK", "0") == "0":  # one of several processes prints
        click.echo(
            f"trained {folder}; next: rlbench run --suite {shlex.quote(shown)} --model {shlex.quote(str(folder))}"
        )


def _train(name: str, folder: Path, quiet: bool, arguments: dict[str, Any]) -> Path:
    """Trains with a progress bar; an interrupt prints how to resume."""
    from rlbench.cli import console
    from rlbench.training.run import train as run_training

    try:
        with console.progress(quiet=quiet) as advance:
            return run_training(
                name,
                out=folder,
                report=lambda s: advance(f"{name} {s.modality}", s.step, s.steps, console.remark(s)),
                **arguments,
            )
    except KeyboardInterrupt:
        click.echo(f"rlbench: interrupted; the same command with --out {shlex.quote(str(folder))} resumes", err=True)
        raise click.exceptions.Exit(130) from None


def _settings(texts: Sequence[str]) -> dict[str, object]:
    found = [_setting(text) for text in texts]
    names = [name for name, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"--set {twice} is given twice; give each field once")
    return dict(found)


def _setting(text: str) -> tuple[str, object]:
    """`epochs=1` -> ("epochs", 1); a value that is not JSON, such as 4/255, and a huge integer stay strings."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--set {text}: it must be KEY=VALUE, such as --set epochs=1")
    try:
        return key, json.loads(value, parse_int=_integer)
    except (ValueError, RecursionError):
        return key, value


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits.lstrip("-")) <= DIGITS else digits


@click.command(short_help="Train all runs of a file in parallel.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder for the run folders."
)
@place_options
@click.option(
    "--table", type=click.Path(path_type=Path), metavar="FILE.md", help="Write the runs' validation results to FILE.md."
)
@_log_with
@click.option("--dry-run", is_flag=True, help="Show the runs and stop.")
def campaign(file: Path, out: Path, table: Path | None, log_with: tuple[str, ...], dry_run: bool, **where: Any) -> None:
    """Train all runs of FILE, such as baselines/campaigns/bundle.yaml, in parallel.

    The same command again trains only the missing runs.
    """
    from rlbench.cli import console, files
    from rlbench.training.campaign import check_runs, is_finished, run_campaign
    from rlbench.training.campaign_file import read_campaign
    from rlbench.training.campaign_table import tabulate

    tasks = read_campaign(file, out, log_with=log_with)
    if dry_run:
        check_runs(tasks)
        for task in tasks:
            state = "finished" if is_finished(task, out) else f"rlbench {shlex.join(task.arguments(out))}"
            click.echo(f"{task.name}: {state}")
        return
    with console.progress(quiet=False) as advance:
        run_campaign(tasks, out, report=lambda name, done, of: advance("campaign", done, of, name), **where)
    click.echo(f"{len(tasks)} runs are in {out}")
    if table is not None:
        comment = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        files.write(table, "\n".join([f"# {file.stem}", "", *comment, "", tabulate(tasks, out), ""]))
