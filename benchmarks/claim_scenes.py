"""Compares methods on the test scenes of the claim's rounds: `python benchmarks/claim_scenes.py RECORDS.jsonl`.

Pooled over the rounds that both models have: the mean over the four sensors, each alone, clean and under attack at the
recipes' radii, and the sum of four with any one sensor attacked at these and at four times these radii. p is that of
McNemar's exact test (1947, https://doi.org/10.1007/BF02295996), not adjusted; a scene is counted once per sensor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import click
import numpy as np
from tabulate import tabulate

from rlbench.core import Record
from rlbench.core.stats.metrics import format_p, holm
from rlbench.core.stats.paired import Pairs
from rlbench.store.flags import unpack
from rlbench.store.records import read_records

ORDER = (
    "rlbind",
    "rlbind-alone",
    "rlbind-joint",
    "tecoa",
    "tecoa-joint",
    "fare-tecoa",
    "fare",
    "pmg-aft",
    "agft",
    "advflyp",
    "languagebind",
)
FAR, STRONG = "sum, any 1, 4 times the radii", "the same, adaptive-long"
CLAIM, LEVEL = ("robust", FAR), 0.05
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


def pair(flags: Flags, a: str, b: str, column: str) -> Pairs | None:
    """The examples of b (before) and a (after), pooled over the rounds that both have; None without data."""
    rounds = [r for model, r in flags if model == a and column in flags[a, r] and column in flags.get((b, r), {})]
    if not rounds:
        return None
    one, other = (np.concatenate([flags[model, r][column] for r in rounds]) for model in (a, b))
    return Pairs.of(other, one)


def describe(pairs: Pairs | None) -> str:
    """The difference in points, the numbers of examples that only one has right, and p; "-" without data."""
    return "-" if pairs is None else f"{-pairs.drop:+.1f} ({pairs.gained}, {pairs.lost}; p {pairs.p:.2g})"


def judge(flags: Flags, rivals: Sequence[str]) -> list[list[str]]:
    """The claim as it was registered: rlbind above every rival in both columns, p by Holm over all of these tests."""
    tests = {(b, c): found for b, c in product(rivals, CLAIM) if (found := pair(flags, "rlbind", b, c)) is not None}
    adjusted = dict(zip(tests, holm([found.p for found in tests.values()]), strict=True))

    def cell(place: tuple[str, str]) -> str:
        if place not in tests:
            return "-"
        word = "level" if adjusted[place] >= LEVEL else "above" if tests[place].drop < 0 else "below"
        return f"{word}, {-tests[place].drop:+.1f}, p {format_p(adjusted[place])}"

    return [[rival, *(cell((rival, column)) for column in CLAIM)] for rival in rivals]


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def main(path: Path) -> None:
    """Print the models' accuracies in each round, their paired differences, and the claim's verdicts."""
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
    rows = [
        [f"{a} against {b}", *(describe(pair(flags, a, b, c)) for c in COLUMNS)]
        for a, b in combinations(known, 2)
        if pair(flags, a, b, "robust") is not None
    ]
    click.echo(tabulate(rows, ["", *COLUMNS], tablefmt="github", disable_numparse=True) + "\n")
    head = ["rlbind against", *CLAIM]
    click.echo(tabulate(judge(flags, known[1:]), head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
