"""`rlbench corrupt`: a corrupted copy of a recording."""

from __future__ import annotations

from pathlib import Path

import click

from rlbench.cli.options import Count


@click.command(short_help="Write a corrupted copy of a bag, LeRobot data set, folder, film, picture or sound.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--corruption", required=True, metavar="NAME", help="The corruption, such as fog; see rlbench list corruptions."
)
@click.option(
    "--severity", required=True, type=Count(1, 5), metavar="N", help="How strong it is: 1 is visible, 5 is the most."
)
@click.option("--seed", type=Count(0), default=0, show_default=True, metavar="N", help="Seed of the random draws.")
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Corrupt only these topics, cameras or files; repeatable."
)
@click.option(
    "--range",
    "limits",
    type=(float, float),
    metavar="LOW HIGH",
    help="The counts of a 16-bit image that are shown as black and white.",
)
@click.option("--rate", type=Count(0), default=0, metavar="HZ", help="Samples per second of a bag's sound.")
@click.option(
    "--channels", type=Count(1, 16), default=1, show_default=True, metavar="N", help="Channels of a bag's sound."
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def corrupt(
    source: Path,
    target: Path,
    corruption: str,
    severity: int,
    seed: int,
    only: tuple[str, ...],
    limits: tuple[float, float] | None,
    rate: int,
    channels: int,
    quiet: bool,
) -> None:
    """Write a copy of IN to OUT with a corruption applied, to test a whole stack on it.

    Every run gives the same pixels and samples. OUT must not exist. What the corruption does not fit is copied
    unchanged and counted: exit 2, and no copy, if that is all.
    """
    from rlbench.cli import console
    from rlbench.corruptions.copies.copy import copy_corrupted
    from rlbench.corruptions.copies.corruptor import Corruptor
    from rlbench.corruptions.copies.tally import Tally

    corruptor = Corruptor(
        name=corruption, severity=severity, seed=seed, only=only, limits=limits, rate=rate, channels=channels
    )
    with console.progress(quiet=quiet) as advance:
        tally = Tally(
            advance=lambda done, total, what: advance(
                f"{done:,}{f' of {total:,}' * (total > 0)} {what}", done, total, ""
            )
        )
        kind = copy_corrupted(source, target, corruptor, tally)
    for verb, counts in (("corrupted", tally.corrupted), ("unchanged", tally.copied)):
        for what, count in sorted(counts.items()):
            click.echo(f"{verb}: {count:,} {what}")
    click.echo(f"wrote {target}: a {kind} with {corruption} {severity}, seed {seed}")
