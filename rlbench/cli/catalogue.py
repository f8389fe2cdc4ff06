"""The commands that list: `rlbench list` what is installed, `rlbench data` published data sets."""

from __future__ import annotations

import click

from rlbench.core.errors import UnknownName

KINDS = ("suites", "models", "attacks", "corruptions", "defences", "executors", "objectives", "tasks")


@click.command("list", short_help="List what is installed: suites, models, attacks, ...")
@click.argument("kind", metavar="|".join(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with every field.")
def list_(kind: str, as_json: bool) -> None:
    """List the installed suites, models, attacks, corruptions, defences, executors, objectives or tasks."""
    from rlbench.cli import console, listing

    if kind not in KINDS:
        raise UnknownName("listing", kind, KINDS)
    rows = listing.list_installed(kind)
    if as_json:
        click.echo(console.as_json(rows))
    else:
        console.listing([listing.brief(row) for row in rows], console.console())


@click.group(short_help="List published data sets; check a local copy.")
def data() -> None:
    """List published data sets and where to get them; check a local copy. Nothing is downloaded."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with every field.")
def list_data_sets(as_json: bool) -> None:
    """List the published data sets with their web pages and their folders in RLBENCH_DATA."""
    from rlbench.cli import console
    from rlbench.tasks.integrity import list_data_sets

    rows = [
        {
            "name": name,
            "modality": one.kind,
            "test examples": str(one.source.test or "-"),
            "folder": one.source.folder,
            "get it from": one.source.url,
            "licence": one.source.licence,
            "layout": one.source.layout,
        }
        for name, one in list_data_sets().items()
    ]
    if as_json:
        click.echo(console.as_json(rows))
    else:
        shown = [{key: value for key, value in row.items() if key not in ("layout", "licence")} for row in rows]
        console.listing(shown, console.console())


@data.command()
@click.argument("name", metavar="NAME")
@click.option("--root", default="", metavar="DIR", help="The folder of the copy [default: its folder in RLBENCH_DATA].")
def check(name: str, root: str) -> None:
    """Check that a local copy of the data set NAME is complete: counts, classes, files, checksums.

    Exit 1 if something is wrong.
    """
    from rlbench.tasks.integrity import inspect_copy, list_data_sets

    copy = inspect_copy(name, root)
    about = list_data_sets()[name].source
    click.echo(f"{about.title} in {copy.folder}")
    marks = {True: "ok", False: "WRONG", None: "-"}
    for finding in copy.findings:
        click.echo(f"  {marks[finding.good]:5}  {finding.what}: {finding.found}")
    click.echo(f"source: {about.url}; licence: {about.licence}")
    click.echo(f"verdict: {'no fault found' if copy.whole else f'not whole; it must contain {about.layout}'}")
    if not copy.whole:
        raise click.exceptions.Exit(1)
