"""The commands that train: `rlbench train`, `rlbench campaign`."""

from __future__ import annotations

import json
import os
import shlex
from itertools import count
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Train a method by its recipe; the run folder is a model name.")
@click.argument("method", metavar="METHOD[:BACKBONE]")
@click.option("--stage", type=click.IntRange(1), metavar="N", help="Of a method with stages [default: the last].")
@click.option("--modality", "modalities", multiple=True, metavar="NAME", help="Several are allowed [default: all].")
@click.option("--suite", metavar="NAME|FILE.yaml", help="Train on the train split of this suite's data.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A field of the recipe, such as epochs=1.")
@click.option("--together", is_flag=True, help="All modalities step by step, sharing their classes' means.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder [default: rlbench-runs/METHOD-k].")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option("--dry-run", is_flag=True, help="Check everything, show steps, passes and estimated time, and stop.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(
    method: str,
    stage: int | None,
    modalities: tuple[Any, ...],
    suite: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train METHOD (languagebind, fare, tecoa, rlbind, ...) by its recipe.

    The run folder that this makes works wherever a model's name does. With --out, a run that was interrupted goes on
    where it was. Several processes: accelerate launch --multi_gpu -m rlbench train METHOD ...
    """
    from rlbench.core.suite import load_suite
    from rlbench.training.rehearsal import rehearse

    name, _, backbone = method.partition(":")
    asked: dict[str, Any] = {
        "modalities": modalities or None,
        "stage": stage,
        "backbone": backbone or "mini",
        "suite": load_suite(suite) if suite else None,
        "overrides": dict(_setting(text) for text in settings),
        "announce": lambda line: None if quiet else click.echo(line, err=True),
        **options,
    }
    if dry_run:
        for line in rehearse(name, out=out, **{**asked, "announce": lambda line: None}):
            click.echo(line)
        return
    free = (Path("rlbench-runs", f"{name}-{k}") for k in count(1))
    folder = _train(name, out or next(path for path in free if not path.exists()), quiet, asked)
    shown = suite or (modalities or ("thermal",))[0]
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        click.echo(f"trained {folder}; next: rlbench run --suite {shown} --model {folder}")


def _train(name: str, folder: Path, quiet: bool, asked: dict[str, Any]) -> Path:
    """Trains with a progress bar; an interrupt says how to go on."""
    from rlbench.cli import console
    from rlbench.training.run import train as trained

    try:
        with console.progress(quiet=quiet) as advance:
            return trained(
                name,
                out=folder,
                report=lambda s: advance(f"{name} {s.modality}", s.step, s.steps, console.remark(s)),
                **asked,
            )
    except KeyboardInterrupt:
        click.echo(f"rlbench: interrupted; the same command with --out {folder} goes on where it was", err=True)
        raise click.exceptions.Exit(130) from None


def _setting(text: str) -> tuple[str, object]:
    """`epochs=1` -> ("epochs", 1); what is no JSON value is a string, such as 4/255."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--set {text}: it must be KEY=VALUE, such as --set epochs=1")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@click.command(short_help="Train all runs of a file, side by side.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of the runs' folders.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes [default: one a CPU core].")
@click.option("--table", type=click.Path(path_type=Path), metavar="FILE.md", help="Write the runs' validation there.")
@click.option("--dry-run", is_flag=True, help="Show the runs and stop.")
def campaign(file: Path, out: Path, workers: int | None, table: Path | None, dry_run: bool) -> None:
    """Train all runs of FILE, such as baselines/campaigns/bundle.yaml, side by side; again: what is missing."""
    from rlbench.cli import console, files
    from rlbench.training.campaign import is_finished, read_campaign, run_campaign, tabulate

    tasks = read_campaign(file, out)
    if dry_run:
        for task in tasks:
            made = "finished" if is_finished(task, out) else f"rlbench {shlex.join(task.arguments(out))}"
            click.echo(f"{task.name}: {made}")
        return
    with console.progress(quiet=False) as advance:
        run_campaign(tasks, out, workers=workers, report=lambda name, done, of: advance("campaign", done, of, name))
    click.echo(f"{len(tasks)} runs are in {out}")
    if table is not None:
        comment = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        files.write(table, "\n".join([f"# {file.stem}", "", *comment, "", tabulate(tasks, out), ""]))
