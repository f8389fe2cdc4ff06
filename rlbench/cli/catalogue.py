"""The commands that list: `rlbench list` what is installed, `rlbench data` published data sets."""

from __future__ import annotations

import click

from rlbench.core.errors import DataError, UnknownName

KINDS = ("suites", "models", "attacks", "corruptions", "defences", "executors", "fusions", "objectives", "tasks")


@click.command("list", short_help="List what is installed: suites, models, attacks, ...")
@click.argument("kind", metavar="|".join(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with every field.")
def list_(kind: str, as_json: bool) -> None:
    """List the installed suites, models, attacks, corruptions, defences, executors, fusions, objectives or tasks."""
    from rlbench.cli import console, listing

    if kind not in KINDS:
        raise UnknownName("listing", kind, KINDS)
    rows = listing.list_installed(kind)
    if as_json:
        click.echo(console.as_json(rows))
    else:
        console.listing([listing.brief(row) for row in rows], console.console())


@click.group(short_help="List published data sets; download one; check a local copy.")
def data() -> None:
    """List published data sets and where to get them; download one; check a local copy.

    Only `rlbench data get` uses the network.
    """


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with every field.")
def list_data_sets(as_json: bool) -> None:
    """List the published data sets: their sizes, commits, web pages and licences; a tilde marks a rounded number.

    Of a webdataset that is not pinned, `rlbench data get` takes the newest commit, and names it.
    """
    from rlbench.cli import console, listing

    rows = listing.list_data_sets()
    if as_json:
        click.echo(console.as_json(rows))
    else:
        shown = [{key: value for key, value in row.items() if key not in ("layout", "folder")} for row in rows]
        console.listing(shown, console.console())


@data.command()
@click.argument("name", metavar="wds/NAME")
@click.option("--revision", metavar="COMMIT", help="Another commit or branch than the catalogue's.")
def get(name: str, revision: str | None) -> None:
    """Download the test split of a webdataset into the hub's cache, where its tasks find it.

    An interrupted download resumes. Every file is compared with the checksum that the hub states. A set that is not
    pinned (see `rlbench data list`) is taken as it is today; the commit is printed, and records of runs name it.
    """
    from rlbench.core import registry
    from rlbench.tasks import hub_sets
    from rlbench.tasks.wds_sets import PATTERNS, find_set

    if name in registry.names("task"):
        raise DataError(f"{name} is not a webdataset of the hub; rlbench data list says where to get it")
    one = find_set(name.removeprefix("wds/"))
    asked = revision or one.revision
    remote = hub_sets.describe_snapshot(one.repo, asked, PATTERNS)
    click.echo(
        f"wds/{one.name}: {len(remote.files)} files, {remote.size / 1e6:,.1f} MB, from {one.repo} at commit "
        f"{remote.commit}; licence: {one.source.licence}"
    )
    if not remote.commit.startswith(asked):
        click.echo(
            f"not pinned: {asked} is this commit now and may be another one later; --revision {remote.commit} "
            "gets the same files again, and records name the commit",
            err=True,
        )
    folder = hub_sets.fetch_snapshot(remote, asked)
    click.echo(
        f"in {folder}; all checksums are those of the hub; rlbench data check wds/{one.name} checks its contents"
    )
    if one.pinned and not remote.commit.startswith(one.revision):
        click.echo(
            f"the catalogue's commit is {one.revision}: in a suite, this one is "
            f"{{name: wds, dataset: {one.name}, revision: {remote.commit}}}"
        )


@data.command()
@click.argument("name", metavar="NAME")
@click.option("--root", default="", metavar="DIR", help="The folder of the copy [default: its folder in RLBENCH_DATA].")
def check(name: str, root: str) -> None:
    """Check that a local copy of the data set NAME is complete: counts, classes, files, checksums.

    Exit 1 if something is wrong.
    """
    from rlbench.tasks.integrity import inspect_copy

    copy = inspect_copy(name, root)
    about = copy.source
    click.echo(f"{about.title} in {copy.folder}")
    marks = {True: "ok", False: "WRONG", None: "-"}
    for finding in copy.findings:
        click.echo(f"  {marks[finding.good]:5}  {finding.what}: {finding.found}")
    click.echo(f"source: {about.url}; licence: {about.licence}")
    click.echo(f"verdict: {'no fault found' if copy.whole else f'not whole; it must contain {about.layout}'}")
    if not copy.whole:
        raise click.exceptions.Exit(1)
