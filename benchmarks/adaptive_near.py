"""Attacks with aa what `adaptive` is nearest to break: `python benchmarks/adaptive_near.py --out rows.jsonl`.

All examples meet `adaptive` (or `--attack adaptive-long`). Of its survivors, those whose margin is smallest beside its
fall (`near`), and some of the others at equal distances in that order (`others`), then meet apgd-ce, and apgd-t where
they survive that. So this costs a tenth of adaptive.py, where every survivor takes 1,000 steps; what aa breaks among
the rest stays unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
import torch
from adaptive import EPS
from torch import Tensor

import rlbench
from rlbench.core import Examples
from rlbench.core.stats.metrics import margin
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.block.bench import prepare
from rlbench.engine.cells.modes import vary

STEPS = {"apgd-ce": 100, "apgd-t": 900}  # gradients of an example that survives
Row = Mapping[str, object]


def order_survivors(head: ZeroShot, data: Examples, x_adv: Tensor, broken: Tensor) -> tuple[Tensor, Tensor]:
    """(S,) the examples that are not broken, and (S,) their margin over its fall, in ascending order of this."""
    with torch.no_grad():
        clean, after = (torch.cat([margin(head(part), y) for part, y in batches(x, data.y)]) for x in (data.x, x_adv))
    rows = (~broken).nonzero()[:, 0]
    ratio = (after / (clean - after).clamp_min(1e-12))[rows]
    return rows[ratio.argsort()], ratio.sort().values


def batches(x: Tensor, y: Tensor) -> zip[tuple[Tensor, Tensor]]:
    """Examples (n, *shape) and labels (n,) in batches of 64."""
    return zip(torch.split(x, 64), torch.split(y, 64), strict=True)


def choose(survivors: int, near: int, others: int) -> list[int]:
    """The places of the nearest survivors, and of others at equal distances among the rest."""
    rest = range(min(near, survivors), survivors)
    step = max(1.0, len(rest) / others) if others else 0.0
    return [*range(min(near, survivors)), *(rest[int(k * step)] for k in range(min(others, len(rest))))]


def compare(
    world: str,
    model: str,
    split: str,
    series: int,
    examples: int,
    near: int,
    others: int,
    name: str,
    fields: Mapping[str, float],
) -> Row:
    """A row of the table: counts, passes, and the ratios of what aa breaks."""
    suite = vary(load_suite(world), series=series)
    bench = prepare(suite, model)
    head, eps = bench.classifier, f"{EPS.get(world, 4)}/255"
    data = suite.task.load(bench.box, 0, examples, "val" if split == "val" else "test")
    found = rlbench.attack(head, data.x, data.y, name, eps=eps, ids=data.ids, seed=suite.seed, **fields)
    rows, ratio = order_survivors(head, data, found.x_adv, found.broken)
    place = torch.tensor(choose(len(rows), near, others), dtype=torch.int64)
    broken = torch.zeros(len(place), dtype=torch.bool)
    for reference in STEPS:
        left = rows[place[~broken]]
        ids = [data.ids[row] for row in left.tolist()]
        hit = rlbench.attack(head, data.x[left], data.y[left], reference, eps=eps, ids=ids, seed=suite.seed)
        broken[~broken] = hit.broken
    missed = ratio[place[broken]].tolist()
    with torch.no_grad():
        clean = sum(int((margin(head(x), y) > 0).sum()) for x, y in batches(data.x, data.y))
    return {
        "world": world,
        "model": model,
        "split": split,
        "series": series,
        "attack": name,
        "n": examples,
        "fields": dict(fields),
        "clean": clean,
        "left": len(rows),
        "passes": int(found.backwards.sum()),
        "near": int((place < near).sum()),
        "others": int((place >= near).sum()),
        "missed": [round(one, 4) for one in missed],
        "missed others": int((broken & (place >= near)).sum()),
        "aa": sum(STEPS.values()) * (len(rows) - len(missed)),
    }


@click.command()
@click.option("--world", "worlds", multiple=True, default=("thermal", "image", "audio", "video"), show_default=True)
@click.option(
    "--model", "models", multiple=True, default=("languagebind", "fare", "tecoa", "rlbind"), show_default=True
)
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--series", type=click.IntRange(0), default=0, show_default=True, help="Another set of examples.")
@click.option(
    "--attack", "name", type=click.Choice(["adaptive", "adaptive-long"]), default="adaptive", show_default=True
)
@click.option("--examples", type=click.IntRange(1), default=500, show_default=True)
@click.option("--near", type=click.IntRange(0), default=16, show_default=True)
@click.option("--others", type=click.IntRange(0), default=8, show_default=True)
@click.option("--field", "fields", multiple=True, help="A field of the attack, such as hopeless=4.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Gets a line per pair; those in it are done."
)
def main(
    worlds: tuple[str, ...],
    models: tuple[str, ...],
    split: str,
    series: int,
    name: str,
    examples: int,
    near: int,
    others: int,
    fields: tuple[str, ...],
    out: Path,
) -> None:
    """Attack with aa what adaptive is nearest to break."""
    torch.set_num_threads(1)
    pairs = [field.split("=") for field in fields]
    values = {key: int(value) if value.isdigit() else float(value) for key, value in pairs}
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for model in models:
        for world in worlds:
            own = {"world": world, "model": model, "split": split, "series": series, "attack": name}
            if any(own.items() <= row.items() for row in done):
                continue
            row = compare(world, model, split, series, examples, near, others, name, values)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            click.echo(json.dumps(row), err=True)


if __name__ == "__main__":
    main()
