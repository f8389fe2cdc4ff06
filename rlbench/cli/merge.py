"""`rlbench merge`: joins the stores of shards."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Join the stores of shards, and complete their records.")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="STORE", help="The joint store.")
def merge(stores: tuple[Path, ...], out: Path) -> None:
    """Join stores that `rlbench run --shard I/N` filled, and show the robustness table.

    All shards of the plan must be among them; neither models nor data are needed. Exit 1 if a cell failed.
    """
    from rlbench.cli import console
    from rlbench.engine.run.merge import merge as join

    records = join(stores, out)
    console.results(records, console.console())
    click.echo(f"\nrecords: {out} (rlbench leaderboard --records {out})")
    if any(record.error is not None for record in records):
        raise click.exceptions.Exit(1)
