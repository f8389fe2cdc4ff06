"""Compares methods on the test scenes of the claim's rounds: `python benchmarks/claim_scenes.py RECORDS.jsonl`.

Pooled over the rounds that both models have: the mean over the four sensors, each alone, clean and under attack at the
recipes' radii, and the sum of four with any one sensor attacked at these and at four times these radii. p is that of
McNemar's exact test (1947, https://doi.org/10.1007/BF02295996), not adjusted; a scene is counted once per sensor.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from tabulate import tabulate

from rlbench.core import Record
from rlbench.core.stats.paired import Pairs
from rlbench.store.flags import unpack
from rlbench.store.records import read_records

ORDER = ("rlbind", "rlbind-alone", "rlbind-joint", "tecoa", "tecoa-joint", "fare-tecoa")
FAR, STRONG = "sum, any 1, 4 times the radii", "the same, adaptive-long"
COLUMNS = ("clean", "robust", "sum, any 1", FAR, STRONG, "unseen, clean")
Flags = dict[tuple[str, str], dict[str, np.ndarray]]  # by model and round, then by column


def column_of(record: Record) -> str | None:
    """The table's column that a record belongs to, or None."""
    cell, fused = str(record.perturbation), "+" in record.modality
    if record.suite.startswith("scenes-unseen"):
        return "unseen, clean" if cell == "clean" and not fused else None
    if not fused:
        return "clean" if cell == "clean" else "robust"
    if not cell.endswith("on any 1"):
        return None
    if "audio 8/255" not in cell:
        return "sum, any 1"
    return STRONG if cell.startswith("adaptive-long") else FAR


def collect(records: list[Record]) -> Flags:
    """The flags of each model and round; those of the sensors one after another, where all four are there."""
    parts: defaultdict[tuple[str, str], defaultdict[str, dict[str, np.ndarray]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in records:
        if record.flags is not None and (column := column_of(record)):
            place = record.model.split(":")[0], str(record.provenance["round"])
            parts[place][column][record.modality] = unpack(record.flags, record.n).astype(bool)
    return {
        place: {
            name: np.concatenate([own[m] for m in sorted(own)])
            for name, own in columns.items()
            if len(own) == (1 if name in ("sum, any 1", FAR, STRONG) else 4)
        }
        for place, columns in parts.items()
    }


def compare(flags: Flags, a: str, b: str, column: str) -> str:
    """The difference of a and b in points, the numbers of examples that only one has right, and p; "-" without data."""
    rounds = [r for model, r in flags if model == a and column in flags[a, r] and column in flags.get((b, r), {})]
    if not rounds:
        return "-"
    one, other = (np.concatenate([flags[model, r][column] for r in rounds]) for model in (a, b))
    pairs = Pairs.of(other, one)
    return f"{100 * (one.mean() - other.mean()):+.1f} ({pairs.gained}, {pairs.lost}; p {pairs.p:.2g})"


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def main(path: Path) -> None:
    """Print the models' accuracies in each round, and their paired differences."""
    flags = collect(read_records([path]))
    rows = [
        [
            model,
            turn,
            *(f"{100 * flags[model, turn][c].mean():.1f}" if c in flags[model, turn] else "-" for c in COLUMNS),
        ]
        for model, turn in sorted(flags, key=lambda place: (place[1], ORDER.index(place[0])))
    ]
    click.echo(tabulate(rows, ["model", "round", *COLUMNS], tablefmt="github", disable_numparse=True) + "\n")
    known = [model for model in ORDER if any(own == model for own, _ in flags)]
    rows = [[f"{a} against {b}", *(compare(flags, a, b, c) for c in COLUMNS)] for a, b in combinations(known, 2)]
    click.echo(tabulate(rows, ["", *COLUMNS], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
