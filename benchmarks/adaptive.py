"""Compares the suites' attacks with aa (apgd-ce, then apgd-t): `python benchmarks/adaptive.py --out adaptive.md`.

Per model: the examples of n that stay correct without an attack, under aa, under the adaptive attack alone, and under
the worst case of what the suites run up to their middle eps (pgd, apgd-ce, adaptive). `missed` counts the examples that
only aa breaks, `extra` those that only the suites' attacks break. Passes are forward passes with their backward.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
from tabulate import tabulate

import rlbench
from rlbench.core import Adversarial, Clean, Record, Suite, Threat
from rlbench.core.suite import load_suite
from rlbench.store.flags import unpack

HEAD = ["world", "model", "eps", "clean", "aa", "suite", "above", "missed", "extra", "adaptive"]
HEAD += ["aa-passes", "suite-passes", "adaptive-passes"]
EPS = {"video": 2}  # elsewhere 4, in 255ths
TARGETED, OTHERS = ("apgd-ce", "apgd-t"), ("pgd", "apgd-ce")


def attacks(world: str, attack: str) -> tuple[Adversarial, ...]:
    """The attacks of a world at half of the middle eps (pgd) and at the middle eps; `attack` is the adaptive one."""
    small, middle = (Threat("linf", Fraction(EPS.get(world, 4), 255 * k)) for k in (2, 1))
    pgd = Adversarial("pgd", small), Adversarial("pgd", middle, ladder=(small.eps,))
    return (*pgd, *(Adversarial(name, middle) for name in (*TARGETED, attack)))


def compare(suite: Suite, model: str, attack: str, examples: int, store: Path) -> list[object]:
    """Runs all attacks, or reads their blocks in the store, and returns a row of the table."""
    columns = attacks(suite.modality, attack)
    records = rlbench.run(
        replace(suite, perturbations=(Clean(), *columns)), model, examples=examples, out=store, workers=1
    )
    clean, rest = correct(records[0]), records[1:]
    aa, short = (worst(rest, names) for names in (TARGETED, (*OTHERS, attack)))
    above = 100 * (int(short.sum()) - int(aa.sum())) / len(clean)
    counts = [int(flags.sum()) for flags in (short & ~aa, aa & ~short, worst(rest, (attack,)))]
    groups = TARGETED, (*OTHERS, attack), (attack,)
    passes = [sum(r.backwards for r in rest if name_of(r) in names) for names in groups]
    eps = str(columns[-1].threat.eps.numerator) + f"/{columns[-1].threat.eps.denominator}"
    return [suite.modality, model, eps, int(clean.sum()), int(aa.sum()), int(short.sum()), f"{above:+.1f}", *counts] + [
        f"{n:,}" for n in passes
    ]


def correct(record: Record) -> np.ndarray:
    """(n,) bool, the examples that are correct in a cell."""
    assert record.flags is not None, record.error
    return unpack(record.flags, record.n).astype(bool)


def name_of(record: Record) -> str:
    """The name of a record's attack."""
    assert isinstance(record.perturbation, Adversarial)
    return record.perturbation.attack


def worst(records: list[Record], names: tuple[str, ...]) -> np.ndarray:
    """(n,) bool, the examples that are correct under every attack of these names."""
    found: np.ndarray = np.logical_and.reduce([correct(record) for record in records if name_of(record) in names])
    return found


@click.command()
@click.option("--world", "worlds", multiple=True, default=("thermal", "image", "audio", "video"), show_default=True)
@click.option(
    "--model", "models", multiple=True, default=("languagebind", "fare", "tecoa", "rlbind"), show_default=True
)
@click.option("--attack", default="adaptive", show_default=True, help="The suites' attack: adaptive or adaptive-long.")
@click.option("--examples", type=click.IntRange(1), default=500, show_default=True)
@click.option("--store", type=click.Path(path_type=Path), default="adaptive-store", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(
    worlds: tuple[str, ...], models: tuple[str, ...], attack: str, examples: int, store: Path, out: Path | None
) -> None:
    """Compare the suites' attacks with apgd-ce, then apgd-t; finished blocks in the store are not computed again."""
    rows = []
    for world in worlds:
        for model in models:
            rows.append(compare(load_suite(world), model, attack, examples, store))
            click.echo(" ".join(map(str, rows[-1])), err=True)
    text = tabulate(
        rows, headers=HEAD, tablefmt="github", disable_numparse=True, colalign=("left",) * 2 + ("right",) * 11
    )
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    setting = f"Attack {attack}; n = {examples} of each bundled world, mini backbone (a small model organism)."
    click.echo(text)
    if out:
        out.write_text(f"# adaptive beside aa\n\n{about}\n{setting}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
