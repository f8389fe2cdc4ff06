"""Compares the adaptive attack with aa (apgd-ce, then apgd-t): `python benchmarks/adaptive.py --out adaptive.md`.

Per model: the survivors of n test examples, and the passes (a forward with its backward) of each attack. `missed`
counts the examples that only aa breaks, `extra` those that only the adaptive attack breaks.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from tabulate import tabulate

import rlbench
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder

HEAD = ["world", "model", "eps", "clean", "aa", "adaptive", "missed", "extra", "aa passes", "adaptive passes", "ratio"]
EPS = {"video": "2/255"}  # elsewhere 4/255


def compare(world: str, model: str, examples: int, seed: int) -> list[object]:
    """Runs both attacks and returns a row of the table."""
    suite, encoder = load_suite(world), load_encoder(model, world)  # type: ignore[arg-type]
    found = suite.task.load(encoder.boxes[suite.modality], 0, examples)
    head = zero_shot(encoder, suite.modality, suite.task.classes, suite.task.templates)
    eps = EPS.get(world, "4/255")

    def run(name: str, rows: torch.Tensor) -> rlbench.Attacked:
        ids = [found.ids[i] for i in rows.tolist()]
        return rlbench.attack(head, found.x[rows], found.y[rows], name, eps=eps, seed=seed, ids=ids)

    every = torch.arange(examples)
    first = run("apgd-ce", every)
    left = (~first.broken).nonzero()[:, 0]
    second = run("apgd-t", left)
    broken = first.broken.clone()
    broken[left] = second.broken
    long = int(first.backwards.sum() + second.backwards.sum())
    short = run("adaptive", every)
    spent = int(short.backwards.sum())
    clean = int((first.backwards > 0).sum())
    survivors = [int((~flags).sum()) for flags in (broken, short.broken)]
    apart = [int((one & ~other).sum()) for one, other in ((broken, short.broken), (short.broken, broken))]
    return [world, model, eps, clean, *survivors, *apart, long, spent, f"{long / max(spent, 1):.1f}"]


@click.command()
@click.option("--world", "worlds", multiple=True, default=("thermal", "image"), show_default=True)
@click.option(
    "--model", "models", multiple=True, default=("languagebind", "fare", "tecoa", "rlbind"), show_default=True
)
@click.option("--examples", type=click.IntRange(1), default=200, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the attacks.")
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(worlds: tuple[str, ...], models: tuple[str, ...], examples: int, seed: int, out: Path | None) -> None:
    """Compare the adaptive attack with apgd-ce, then apgd-t."""
    torch.set_num_threads(1)
    rows = []
    for world in worlds:
        for model in models:
            begun = time.perf_counter()
            rows.append(compare(world, model, examples, seed))
            click.echo(f"{world} {model}: {time.perf_counter() - begun:.0f} s", err=True)
    text = tabulate(
        rows, headers=HEAD, tablefmt="github", disable_numparse=True, colalign=("left",) * 2 + ("right",) * 9
    )
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    setting = f"n = {examples} of each bundled world, mini backbone (a small model organism), attack seed {seed}."
    click.echo(text)
    if out:
        out.write_text(f"# adaptive beside aa\n\n{about}\n{setting}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
