"""The commands that render records: `rlbench leaderboard`, `rlbench plot`."""

from __future__ import annotations

from pathlib import Path

import click

from rlbench.cli.options import Count, OneOf
from rlbench.core.errors import UnknownName

PATHS = "A result store, a .jsonl file or a folder of them; repeatable [default: leaderboards/]."


@click.command(short_help="Render records as tables or as a web page.")
@click.option("--records", multiple=True, type=click.Path(path_type=Path), metavar="PATH", help=PATHS)
@click.option("--board", metavar="NAME", help="Render only this board.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a board differs from its records.")
@click.option(
    "--freeze", type=click.Path(path_type=Path), metavar="FILE", help="Write --records to FILE as reference records."
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the campaign that trained the models, for --freeze.",
)
@click.option(
    "--format",
    type=OneOf(["md", "latex", "csv", "json"]),
    default="md",
    show_default=True,
    help="The format of the tables.",
)
@click.option("--baseline", metavar="MODEL", help="Show differences from this model, with paired tests.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a web page to DIR/index.html; of all boards, a start page and a page each.",
)
@click.option("--pictures", type=Count(0, 16), default=0, metavar="N", help="Show N examples per cell on the page.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables to FILE, not to stdout.")
def leaderboard(
    records: tuple[Path, ...],
    board: str | None,
    check: bool,
    freeze: Path | None,
    runs: Path | None,
    format: str,
    baseline: str | None,
    html: Path | None,
    pictures: int,
    out: Path | None,
) -> None:
    """Render records as tables (Markdown, LaTeX, CSV, JSON) or as HTML pages.

    \b
    From a run to a board:
      rlbench run --suite thermal --model rlbind --model fare
      rlbench leaderboard --records rlbench-results --baseline fare        print the table
      rlbench leaderboard --records rlbench-results --html site --pictures 4
      rlbench leaderboard --records rlbench-results --freeze leaderboards/records/mine.jsonl
      rlbench leaderboard                                      writes leaderboards/*.md
      rlbench leaderboard --check                              exits with 1 if one is out of date
      rlbench leaderboard --html site                          a start page and a page of each board
    """
    if records and (check or board):
        raise click.UsageError("--check and --board are for the boards in leaderboards/; leave out --records")
    if runs and not freeze:
        raise click.UsageError("--runs needs --freeze: it names the frozen records by the campaign's runs")
    if runs and not runs.is_dir():
        raise click.UsageError(f"--runs {runs}: there is no such folder")
    if freeze and not records:
        raise click.UsageError("--freeze needs --records: the records to freeze")
    if (format != "md" or baseline) and not (records or html):
        raise click.UsageError(
            "--format and --baseline need --records: the boards are Markdown with their own baseline"
        )
    if pictures and not html:
        raise click.UsageError("--pictures needs --html: only the web page shows pictures")
    _check_targets(html, freeze, out)
    if freeze:
        _freeze(records, freeze, runs)
    if html and not (records or board):
        _pages(html, baseline, pictures)
    elif html:
        _page(records or _records_of(board), html, baseline, pictures)
    elif records and (out or not freeze):
        _tables(records, out, format, baseline)
    elif not records:
        _boards(board, check, out)


def _check_targets(folder: Path | None, *paths: Path | None) -> None:
    """Raises StoreError before anything is computed if the folder or one of the files can't be written."""
    from rlbench.cli import files

    if folder:
        files.check_folder(folder)
    for path in filter(None, paths):
        files.check_writable(path)


def _freeze(paths: tuple[Path, ...], file: Path, runs: Path | None) -> None:
    from rlbench.cli import files
    from rlbench.report.boards.leaderboard import freeze
    from rlbench.store.records import read_records

    files.write(file, freeze(read_records(paths), runs))
    click.echo(f"wrote {file}; `rlbench leaderboard` renders it")


def _tables(paths: tuple[Path, ...], out: Path | None, format: str, baseline: str | None) -> None:
    from rlbench.cli import files
    from rlbench.report.boards.leaderboard import render
    from rlbench.report.boards.tables import frame
    from rlbench.store.per_example import sources
    from rlbench.store.records import read_records

    records = read_records(paths)
    title = f"Results: {', '.join(path.name or str(path) for path in paths)}"
    shared = sources(records, paths)
    files.emit(out, render(frame(records), title, baseline=baseline, format=format, sources=shared))


def _page(paths: tuple[Path, ...], folder: Path, baseline: str | None, pictures: int) -> None:
    from rlbench.cli import console, files
    from rlbench.report.site import page

    with console.progress(quiet=not pictures) as advance:
        text = page.render(
            paths, baseline=baseline, pictures=pictures, report=lambda what, k, n: advance(what, k, n, "")
        )
    files.write_all(folder, {"index.html": text.encode()})
    click.echo(f"wrote {folder / 'index.html'} ({len(text.encode()) / 1e6:.1f} MB); open it in any browser")


def _pages(folder: Path, baseline: str | None, pictures: int) -> None:
    """Writes the start page and the pages of all boards."""
    from rlbench.cli import console, files
    from rlbench.report.boards.leaderboard import boards
    from rlbench.report.site import start

    if baseline:
        raise click.UsageError("--baseline is for one board: choose it with --board, or give --records")
    with console.progress(quiet=not pictures) as advance:
        pages = start.render_all(boards(), pictures=pictures, report=lambda what, k, n: advance(what, k, n, ""))
    files.write_all(folder, {name: text.encode() for name, text in pages.items()})
    size = sum(len(text.encode()) for text in pages.values()) / 1e6
    click.echo(f"wrote {len(pages)} pages to {folder} ({size:.1f} MB); open {folder / start.HOME} in any browser")


def _records_of(name: str | None) -> tuple[Path, ...]:
    """The reference records of one board, or of all boards. Raises: UnknownName."""
    from rlbench.report.boards.leaderboard import boards

    paths = {board.name: board.records for board in boards()}
    if name is not None and name not in paths:
        raise UnknownName("board", name, paths)
    return (paths[name],) if name else tuple(paths.values())


def _boards(name: str | None, check: bool, out: Path | None) -> None:
    from rlbench.cli import files
    from rlbench.report.boards.leaderboard import boards, is_checkout

    chosen = [board for board in boards() if board.records in _records_of(name)]
    if not chosen:
        click.echo("there are no boards: leaderboards/records has no .jsonl file; make one with --records and --freeze")
    elif check:
        stale = [board for board in chosen if board.stale()]
        for board in stale:
            click.echo(f"{board.page} differs from what {board.records} gives; run `rlbench leaderboard`", err=True)
        click.echo(f"{len(chosen) - len(stale)} of {len(chosen)} boards are up to date")
        raise click.exceptions.Exit(1 if stale else 0)
    elif out and len(chosen) > 1:
        raise click.UsageError(f"--out takes one board; choose it with --board: {', '.join(b.name for b in chosen)}")
    else:
        for board in chosen:
            files.emit(out or (board.page if is_checkout(board) else None), board.text())


@click.command(short_help="Draw figures of records: curves, scatter plots, heat maps, boards.")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STORE|FILE.jsonl ...")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=OneOf(["curves", "sensors", "scatter", "corruptions", "board"]),
    help="Draw only this kind; repeatable [default: all but board].",
)
@click.option("--format", type=OneOf(["png", "svg"]), default="png", show_default=True, help="The file format.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="figures",
    show_default=True,
    metavar="DIR",
    help="Write the figures to DIR.",
)
def plot(records: tuple[Path, ...], kinds: tuple[str, ...], format: str, out: Path) -> None:
    """Draw records for papers, as PNG or SVG: the same records give the same bytes.

    curves: accuracy against eps with 95% bands. sensors: accuracy by the number of attacked sensors. scatter: robust
    against clean accuracy. corruptions: heat maps of accuracy by severity. board: each table, as a picture to share. A
    figure without data is left out. Several stores are merged.
    """
    from rlbench.cli import files

    files.check_folder(out)
    from rlbench.report.figures.plots import DEFAULT, KINDS, draw
    from rlbench.store.records import read_records

    figures = draw(read_records(records), kinds=[kind for kind in KINDS if kind in (kinds or DEFAULT)], format=format)
    files.write_all(out, figures)
    for name in figures:
        click.echo(f"wrote {out / name}")
    if not figures:
        click.echo("nothing to draw: curves need two eps, a scatter plot two models, a heat map all five severities")
