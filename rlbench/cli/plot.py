"""The command that draws records for papers: `rlbench plot`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Draw records: curves, heat maps, clean against robust.")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STORE|FILE.jsonl ...")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["curves", "scatter", "corruptions"]), help="[all]")
@click.option("--format", type=click.Choice(["png", "svg"]), default="png", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="figures", show_default=True)
def plot(records: tuple[Path, ...], kinds: tuple[str, ...], format: str, out: Path) -> None:
    """Draw records for papers, as PNG or SVG: the same records give the same bytes.

    Accuracy against eps with 95% bands, clean against robust accuracy, and corruptions by severity; what the records
    have no data for is left out. Several stores are merged.
    """
    from rlbench.cli import files
    from rlbench.report.figures.plots import KINDS, draw
    from rlbench.store.records import read_records

    figures = draw(read_records(records), kinds=[kind for kind in KINDS if not kinds or kind in kinds], format=format)
    files.write_all(out, figures)
    for name in figures:
        click.echo(f"wrote {out / name}")
    if not files:
        click.echo("nothing to draw: a curve needs two eps, a scatter two models, a heat map all five severities")
