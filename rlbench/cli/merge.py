"""The commands that join: `rlbench merge`, the stores of shards; `rlbench merge-weights`, the weights of models."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import click

from rlbench.cli.options import OneOf


@click.command(short_help="Join the stores of shards, and complete their records.")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="STORE", help="The joint store.")
def merge(stores: tuple[Path, ...], out: Path) -> None:
    """Join stores that `rlbench run --shard I/N` filled, and show the robustness table.

    All shards of the plan must be among them; neither models nor data are needed. Exit 1 if a cell failed. To join the
    weights of models, use rlbench merge-weights.
    """
    from rlbench.cli import console
    from rlbench.engine.run.merge import merge as join

    records = join(stores, out)
    console.results(records, console.console())
    click.echo(f"\nrecords: {out} (rlbench leaderboard --records {quote(str(out))})")
    if any(record.error is not None for record in records):
        raise click.exceptions.Exit(1)


@click.command("merge-weights", short_help="Merge the weights of models of one backbone into a new model.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder of the new model."
)
@click.option(
    "--rule",
    type=OneOf(["mean", "pistole"]),
    default="mean",
    show_default=True,
    help="The average of the weights, or PISTOLE's masks, for a natural and then a robust model.",
)
@click.option("--suite", metavar="NAME|FILE.yaml", help="PISTOLE measures gradients on this suite's train split.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
def merge_weights(models: tuple[str, ...], out: Path, suite: str | None, **options: Any) -> None:
    """Merge MODELs, by names or run folders, into a folder that is a model, without training.

    They must come from one backbone; the modalities that all of them have are merged. This is not rlbench merge, which
    joins the stores of shards.
    """
    from rlbench.training.data import load_train_suite
    from rlbench.training.merging import merge_weights as merge_models

    chosen = load_train_suite(suite) if suite else None
    modalities = merge_models(models, out, suite=chosen, announce=lambda line: click.echo(line, err=True), **options)
    shown = suite or modalities[0]
    click.echo(
        f"merged {len(models)} models into {out}; next: rlbench run --suite {quote(shown)} --model {quote(str(out))}"
    )
