"""`rlbench report`: a model's results for its model card."""

from __future__ import annotations

from pathlib import Path

import click

from rlbench.cli.options import Count
from rlbench.cli.places import records_option


@click.command(short_help="Write a model's results as a section of its model card.")
@click.argument("model", metavar="MODEL")
@records_option
@click.option(
    "--series", type=Count(0), metavar="N", help="Only results on the N-th series of test examples [default: all]."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.md",
    help="Write the text to FILE.md, and the curves to FILE.png beside it.",
)
def report(model: str, records: tuple[Path, ...], series: int | None, out: Path) -> None:
    """Write the results of MODEL as Markdown: soundness, tables, curves, provenance.

    \b
      rlbench run --suite thermal --model rlbind
      rlbench report rlbind --out rlbind.md
    """
    if out.suffix != ".md":
        raise click.UsageError(f"--out {out}: it must end in .md")
    from rlbench.cli import files
    from rlbench.report.figures.model_report import report as make_report
    from rlbench.store.records import read_records

    files.check_writable(out)
    picture = out.with_suffix(".png")
    made = make_report(read_records(records or (Path("rlbench-results"),)), model, picture.name, series=series)
    files.write(out, made.text)
    if made.picture is not None:
        files.write(picture, made.picture)
    click.echo(f"wrote {out}{f' and {picture}' if made.picture else ''}; paste it into the model card")
