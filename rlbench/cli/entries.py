"""Submissions: `rlbench entry`, `verify`."""

from __future__ import annotations

import secrets
from pathlib import Path
from shlex import quote
from typing import Any

import click

from rlbench.cli.gate import TABLES, show_progress
from rlbench.cli.options import Count
from rlbench.cli.places import place_options


@click.command(short_help="Write a submission: what a run claims.")
@click.argument("suite", metavar="SUITE|FILE.yaml")
@click.argument("model", metavar="MODEL")
@click.option(
    "--records", type=click.Path(path_type=Path), default="rlbench-results", show_default=True, help="The store."
)
@click.option("--source", required=True, metavar="URL", help="The web page of the weights.")
@click.option("--summary", required=True, metavar="TEXT", help="Describe the model in one line.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE.json", help="Write it to FILE.json."
)
def entry(suite: str, model: str, records: Path, source: str, summary: str, out: Path) -> None:
    """Write what the records of MODEL on SUITE claim, for a submission, which rlbench verify tests."""
    from rlbench.cli import files
    from rlbench.encoders.models import default_name
    from rlbench.gate.submission import make_submission, to_json
    from rlbench.store.records import read_records

    submission = make_submission(
        read_records([records]), model=default_name(model), suite=suite, source=source, summary=summary
    )
    files.write(out, to_json(submission))
    click.echo(f"wrote {out}: {len(submission.claims)} claims; check them with `rlbench verify {quote(str(out))}`")


@click.command(short_help="Test a submission's claims on random examples.")
@click.argument("file", metavar="ENTRY.json", type=click.Path(path_type=Path))
@click.option(
    "--examples", type=Count(1), default=100, show_default=True, metavar="N", help="Number of random examples."
)
@click.option("--seed", type=Count(0), metavar="N", help="Seed of the draw [default: a new one, which is shown].")
@click.option(
    "--margin", default=1.0, show_default=True, metavar="POINTS", help="Allow a claim to be too high by this."
)
@click.option(
    "--alpha", default=0.05, show_default=True, metavar="P", help="Accept this chance of refuting a true submission."
)
@click.option("--model", metavar="NAME|FOLDER", help="The model on this machine [default: as the submission names it].")
@click.option("--format", "shape", type=TABLES, default="text", show_default=True, help="The format of the table.")
@place_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
def verify(file: Path, seed: int | None, shape: str, quiet: bool, **options: Any) -> None:
    """Run random examples of a submission again and test its claims: exit 0 they hold, 1 refuted, 2 error."""
    from rlbench.cli import console
    from rlbench.core.markdown import grid
    from rlbench.gate import render
    from rlbench.gate.submission import read_submission
    from rlbench.gate.verify import verify as run_verify

    submission = read_submission(file)
    seed = secrets.randbelow(10**6) if seed is None else seed
    with show_progress(quiet) as report:
        found = run_verify(submission, seed=seed, report=report, **options)
    if shape == "markdown":
        click.echo(grid(render.claims(found)))
    else:
        render.table(render.claims(found), console.console())
    click.echo(render.describe_verification(found))
    raise click.exceptions.Exit(0 if found.holds else 1)
