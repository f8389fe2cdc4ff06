"""What rival attacks break that aa leaves: `python benchmarks/frontier_attacks.py --out frontier_attacks.md`.

Per model, of the examples that are correct clean: `aa` is what survives apgd-ce and then apgd-t with all 9 wrong
classes as targets. Each rival attacks only aa's survivors; `also` is how many of them it breaks, `passes` its
forward passes with their backward. `apgd-ce` again, from another random start, tells what any more compute would break.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from time import process_time

import click
import torch
from tabulate import tabulate
from torch import Tensor

import rlbench
from rlbench.core import Adversarial, Clean, Field, Norm, Surrogate, Threat, registry
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.engine.attack.judge import attack_and_judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench, prepare

WORLDS, MODELS = ("thermal", "image"), ("languagebind", "rlbind")
RIVALS = ("apgd-ce", "apgd-dlr", "apgd-pm", "acg", "fmn")
ORDERS: tuple[tuple[str, int], ...] = (("apgd-t", 3), ("malt", 3))
CURVE = (1, 2, 4, 6, 8)  # in 255ths
COUNTS = (1, 5, 20, 51)  # pixels; 20 and 51 are 2% and 5% of 32 x 32
SURROGATES = ("languagebind", "rlbind", "tecoa")


@dataclass(frozen=True, eq=False)
class Correct:
    """The examples of a bench that are correct clean.

    Attributes:
        bench: the encoder on the task.
        x: (R, *shape) inputs.
        y: (R,) int64 labels.
        ids: the R ids.
    """

    bench: Bench
    x: Tensor
    y: Tensor
    ids: tuple[str, ...]

    def run(self, rows: Tensor, name: str, threat: Threat, *, scope: str = "", **fields: Field) -> Outcome:
        """Attacks the examples `rows` (K,) int64; `scope` changes the random numbers."""
        if not len(rows):
            return Outcome(rows, 0, 0, 0.0)
        meter = Meter(self.bench.classifier, len(rows), batch_size=self.bench.batch_size)
        streams = ExampleStreams(self.bench.seed, self.ids, f"{name} {fields} {threat}{scope}").take(rows.tolist())
        began = process_time()
        attack = registry.make("attack", name, fields)
        ball = self.bench.ball(threat)
        judged = attack_and_judge(attack, meter, self.x[rows], self.y[rows], ball, streams).judgement
        return Outcome(
            rows[judged.correct], int((~judged.correct).sum()), int(meter.backwards.sum()), process_time() - began
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack left (K,) int64 and broke, its backward passes, and its CPU seconds."""

    left: Tensor
    broken: int
    passes: int
    seconds: float


def load(world: str, model: str, examples: int) -> Correct:
    """The examples of a bundled world that the model classifies correctly."""
    bench = prepare(load_suite(world), model, batch_size=128)
    batch = bench.inputs.load(0, examples)
    with torch.no_grad():
        right = torch.cat([bench.classifier(part).argmax(1) for part in batch.x.split(128)]) == batch.y
    rows = right.nonzero()[:, 0]
    return Correct(bench, batch.x[rows], batch.y[rows], tuple(batch.ids[i] for i in rows.tolist()))


def linf(numerator: int) -> Threat:
    """An Linf threat of so many 255ths."""
    return Threat("linf", Fraction(numerator, 255))


def rivals(data: Correct, place: Sequence[object]) -> tuple[list[list[object]], list[list[object]]]:
    """The rows of the tables of rivals and of orders of targets, at 4/255."""
    threat, everyone = linf(4), torch.arange(len(data.y))
    first = data.run(everyone, "apgd-ce", threat)
    second = data.run(first.left, "apgd-t", threat)
    head = [*place, len(everyone), len(second.left), first.passes + second.passes]
    found = []
    for name in RIVALS:
        one = data.run(second.left, name, threat, scope=" again")
        found.append([*head, name, one.broken, one.passes, f"{one.seconds:.0f}"])
    orders = [[*place, len(first.left), "apgd-t, 9 targets", second.broken, second.passes]]
    for name, targets in ORDERS:
        one = data.run(first.left, name, threat, targets=targets)
        orders.append([*place, len(first.left), f"{name}, {targets} targets", one.broken, one.passes])
    return found, orders


def ladder(
    place: tuple[str, str], name: str, norm: Norm, eps: Sequence[Fraction], n: int, store: Path, surrogate: str = ""
) -> list[object]:
    """Accuracies in %, the clean one first, and backward passes, of a suite with this attack at each eps."""
    of, rungs = Surrogate(surrogate) if surrogate else None, () if name == "uap" else tuple(eps)
    cells = [Adversarial(name, Threat(norm, e), ladder=rungs[:i], surrogate=of) for i, e in enumerate(eps)]
    world, model = place
    suite = replace(load_suite(world), perturbations=(Clean(), *cells))
    records = rlbench.run(suite, model, examples=n, out=store, workers=1)
    scores = [f"{100 * (r.n_correct or 0) / n:.1f}" for r in records]
    return [*place, cells[0].call, *scores, sum(r.backwards for r in records)]


def apgd_curve(data: Correct, place: Sequence[object], n: int) -> list[object]:
    """As a `ladder`: accuracies under apgd-ce and then apgd-t with 3 targets, both judged at every eps."""
    left, scores, passes = torch.arange(len(data.y)), [], 0
    for k in CURVE:
        for name, fields in (("apgd-ce", {}), ("apgd-t", {"targets": 3})):
            found = data.run(left, name, linf(k), **fields)
            left, passes = found.left, passes + found.passes
        scores.append(f"{100 * len(left) / n:.1f}")
    return [*place, "apgd-ce, then apgd-t", f"{100 * len(data.y) / n:.1f}", *scores, passes]


TABLES = (
    ("Beyond aa", ["world", "model", "clean", "aa", "aa-passes", "rival", "also", "passes", "CPU s"]),
    ("Which targets", ["world", "model", "survive apgd-ce", "attack", "breaks", "passes"]),
    ("One run for all eps", ["world", "model", "attack", "clean", *(f"{k}/255" for k in CURVE), "passes"]),
    ("Without the model or the input", ["world", "model", "attack", "clean", *(f"{k}/255" for k in CURVE), "passes"]),
    ("Dead pixels and patches", ["world", "model", "attack", "clean", *(f"{k} pixels" for k in COUNTS), "passes"]),
)


@click.command()
@click.option("--world", "worlds", multiple=True, default=WORLDS, show_default=True)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--examples", type=click.IntRange(1), default=200, show_default=True)
@click.option("--store", type=click.Path(path_type=Path), default="frontier-store", show_default=True)
@click.option("--curve", is_flag=True, help="Only the curves of apgd and fmn.")
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the tables.")
def main(
    worlds: tuple[str, ...], models: tuple[str, ...], examples: int, store: Path, curve: bool, out: Path | None
) -> None:
    """Compare rival attacks with apgd-ce, then apgd-t, on bundled encoders."""
    rows: list[list[list[object]]] = [[] for _ in TABLES]
    for place in product(worlds, models):
        data = load(*place, examples)
        eps, counts = [Fraction(k, 255) for k in CURVE], [Fraction(k) for k in COUNTS]
        curves = [ladder(place, name, "linf", eps, examples, store) for name in ("apgd-ce", "fmn")]
        curves.insert(1, apgd_curve(data, place, examples))
        if curve:
            rows[2] += curves
            click.echo("\n".join(" ".join(map(str, row)) for row in curves), err=True)
            continue
        more = rivals(data, place)
        found = [(name, other) for name in ("apgd-ce", "uap") for other in ("", *SURROGATES) if other != place[1]]
        weaker = [ladder(place, name, "linf", eps, examples, store, other) for name, other in found]
        pixels = [ladder(place, name, "l0", counts, examples, store) for name in ("sigma-zero", "patch")]
        for table, new in zip(rows, (*more, curves, weaker, pixels), strict=True):
            table += new
            click.echo("\n".join(" ".join(map(str, row)) for row in new), err=True)
    text = [f"# Rival attacks\n\n{' '.join((__doc__ or '').split(chr(10) * 2)[1].split())} n = {examples}, Linf, mini."]
    for (title, head), table in zip(TABLES, rows, strict=True):
        if table:
            text.append(f"## {title}\n\n{tabulate(table, headers=head, tablefmt='github', disable_numparse=True)}")
    click.echo("\n\n".join(text))
    if out:
        out.write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
