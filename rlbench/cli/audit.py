"""`rlbench audit`: soundness checks of a model on a suite, as a table and a badge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlbench.cli.options import Count
from rlbench.cli.replies import reserve_stdout
from rlbench.cli.signals import exit_code, terminable

if TYPE_CHECKING:
    from rich.console import Console

    from rlbench.audit.report import Audit
    from rlbench.cli.console import Advance

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "adaptive": "magenta"}
STYLES |= dict.fromkeys(("skip", "not applicable"), "dim")
COLOURS = {
    "sound": "bold green",
    "partial": "bold cyan",
    "warn": "bold yellow",
    "needs adaptive": "bold magenta",
    "unreliable": "bold red",
}


@click.command(short_help="Check whether a robust accuracy can be trusted, and give a badge.")
@click.option("--suite", required=True, metavar="NAME|FILE.yaml", help="The suite; NAME:MODALITY selects one modality.")
@click.option(
    "--model", required=True, metavar="NAME|FOLDER", help="The model; NAME+DEFENCE puts it behind a registered defence."
)
@click.option("--examples", type=Count(1, 200), default=100, show_default=True, metavar="N", help="Number of examples.")
@click.option("--check", "only", multiple=True, metavar="ID", help="Run only this check, such as S7; repeatable.")
@click.option("--batch-size", type=Count(1), default=64, show_default=True, metavar="N", help="Examples per pass.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("rlbench-results"),
    show_default=True,
    metavar="DIR",
    help="Write the report to DIR/audits.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def audit(
    suite: str,
    model: str,
    examples: int,
    only: tuple[str, ...],
    batch_size: int,
    device: str,
    out: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check whether MODEL's robust accuracy on SUITE can be trusted: 21 checks and a badge.

    The checks use the Linf threat model with the most attacks in the suite. The badge is sound, warn, needs adaptive
    or unreliable. Exit 1 if the badge is unreliable or needs adaptive, else 0.
    """
    from rlbench.audit.report import audit as run_audit
    from rlbench.cli import console
    from rlbench.core.machine import device_of, reproducible
    from rlbench.core.suite import load_suite

    used = device_of(device)
    reply = reserve_stdout(click.get_current_context()) if as_json else None
    try:
        with terminable(), console.progress(quiet=quiet) as advance, reproducible(used):
            counter = _Counter(advance)
            found = run_audit(
                load_suite(suite),
                model,
                examples=examples,
                only=only,
                device=used,
                batch_size=batch_size,
                report=counter.check,
                on_pass=counter.add,
            )
    except KeyboardInterrupt as error:
        click.echo("rlbench: interrupted; nothing was written: the same command starts the audit again", err=True)
        raise click.exceptions.Exit(exit_code(error)) from None
    path = _write(found, only, out)
    if as_json:
        click.echo(found.json(), nl=False, file=reply)
    else:
        show(found, console.console())
        click.echo(f"\nreport: {path}")
    if not found.accepted:
        raise click.exceptions.Exit(1)


class _Counter:
    """Reports the check that is running and the forward passes so far."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance
        self.passes, self.what, self.done, self.total = 0, "loading", 0, 1

    def check(self, what: str, done: int, total: int) -> None:
        self.what, self.done, self.total = what, done, total
        self.add(0)

    def add(self, n: int) -> None:
        self.passes += n
        self.advance(self.what, self.done, self.total, f"{self.passes:,} passes")


def _write(found: Audit, only: tuple[str, ...], out: Path) -> Path:
    from rlbench.cli import files
    from rlbench.core.errors import StoreError

    name = "-".join((found.suite, found.model, *only)).replace("/", "_").replace("\\", "_").replace(":", "_")
    path = out / "audits" / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}; choose another folder with --out") from None
    files.write(path, found.json())
    return path


def show(found: Audit, out: Console) -> None:
    """Prints the table of checks, the badge, and what to do about each check that failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("check", "asks that", "result", "measured"):
        table.add_column(name, no_wrap=name in ("check", "result"))
    for one in found.findings:
        table.add_row(one.id, one.check.asks, Text(one.status, style=STYLES[one.status]), Text(one.said))
    title = f"{found.model} on {found.suite}, {found.threat}, n = {found.examples}: clean {100 * found.clean:.1f}%"
    robust = "" if found.robust is None else f", robust at most {100 * found.robust:.1f}%"
    out.print(Text(title + robust, style="bold"))
    out.print(table)
    out.print()
    for one in found.findings:
        if one.status in ("warn", "fail", "adaptive"):
            out.print(Text(f"{one.id} ({one.check.rule}): {one.check.advice}.", style=STYLES[one.status]))
    out.print(Text.assemble("badge: ", (found.badge, COLOURS[found.badge]), f"   ({found.seconds:.0f} s)"))
