"""Compares the survivors of a bf16 (or tf32) search with those of a float32 one: `python benchmarks/precision.py`.

Each row is APGD-CE on one model: the survivors of the float32 search, those of the search in low precision before and
after its last short search in float32, both as differences in points, and the flags that differ: `missed` are the
examples that only the float32 search breaks, `extra` those that only the other breaks. On a CPU, bf16 means autocast,
and there is no TF32. Seconds are of CPU time. Rows are kept in --store, so that the same command goes on where it was
stopped. vit-b-32 has random weights and smooth random images, of which a part breaks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import click
import torch
from random_vit import SIZES, make_bench
from tabulate import tabulate

from rlbench.core import Adversarial, Clean, Threat
from rlbench.core.machine import reproducible
from rlbench.core.precision import Precision
from rlbench.core.suite import load_suite
from rlbench.core.threat import search_in
from rlbench.engine.attack.exact import AGAIN, BROKE
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.cells.groups import Group, group_of
from rlbench.store.blocks import BLOCK, Block

EPS = {"video": 2}  # of the bundled worlds, elsewhere 4, in 255ths
WORLDS = ("thermal", "image", "audio", "video")
MODELS = ("languagebind", "fare", "tecoa", "rlbind")
VIT_EPS = "1/170"  # at which a part of vit-b-32's answers break
HEAD = ["data", "model", "eps", "n", "clean", "fp32", "before", "after", "last search", "missed", "extra", "CPU s"]


@dataclass(frozen=True)
class Row:
    """Counts of examples, and CPU seconds of both searches."""

    data: str
    model: str
    eps: str
    n: int
    clean: int
    exact: int
    before: int
    after: int
    again: int
    missed: int
    extra: int
    seconds: tuple[float, float]

    def cells(self) -> list[object]:
        """The row of the table."""
        points = [f"{100 * (found - self.exact) / self.n:+.1f}" for found in (self.before, self.after)]
        broke = f"{self.before - self.after} of {self.again}"
        spent = " / ".join(f"{one:.0f}" for one in self.seconds)
        return [
            self.data,
            self.model,
            self.eps,
            self.n,
            self.clean,
            self.exact,
            *points,
            broke,
            self.missed,
            self.extra,
            spent,
        ]


def run(bench: Bench, attack: Adversarial) -> tuple[list[Block], list[Block], float]:
    """The clean blocks, the blocks of an attack, and its CPU seconds."""
    clean, found, spent = list[Block](), list[Block](), 0.0
    with reproducible(bench.device):
        for start in range(0, bench.suite.examples, BLOCK):
            span = start, min(start + BLOCK, bench.suite.examples)
            clean += evaluate(bench, [Group()], *span, None, lambda n: None)  # type: ignore[arg-type]
            begun = time.process_time()
            found += evaluate(bench, [group_of(attack)], *span, clean[-1], lambda n: None)  # type: ignore[arg-type]
            spent += time.process_time() - begun
    return clean, found, spent


def compare(bench: Bench, attack: Adversarial, precision: Precision, model: str) -> Row:
    """Runs an attack in float32 and in another precision."""
    clean, exact, seconds = run(bench, attack)
    _, low, others = run(bench, search_in(attack, precision))  # type: ignore[arg-type]
    alive, left = (torch.cat([torch.from_numpy(block.correct) for block in blocks]) for blocks in (exact, low))
    again, broke = (sum(block.evidence[name] for block in low) for name in (AGAIN, BROKE))
    return Row(
        data=bench.suite.name,
        model=model,
        eps=str(attack.threat),
        n=len(alive),
        clean=sum(int(block.correct.sum()) for block in clean),
        exact=int(alive.sum()),
        before=int(left.sum()) + broke,
        after=int(left.sum()),
        again=again,
        missed=int((left & ~alive).sum()),
        extra=int((alive & ~left).sum()),
        seconds=(seconds, others),
    )


def make(data: str, model: str, examples: int, steps: int, device: str) -> tuple[Bench, Adversarial]:
    """The bench and the attack of a row."""
    if data in SIZES:
        attack = Adversarial("apgd-ce", Threat("linf", Fraction(VIT_EPS)), (("steps", steps),))
        return make_bench(data, attack, examples=examples, device=device), attack
    attack = Adversarial("apgd-ce", Threat("linf", Fraction(EPS.get(data, 4), 255)), (("steps", steps),))
    suite = replace(load_suite(data), perturbations=(Clean(), attack), examples=examples)
    return prepare(suite, model, device=device), attack


def page(rows: Sequence[Row], missing: Sequence[str], precision: str, steps: int, device: str) -> str:
    """The markdown page, with the names of the rows that are still missing."""
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    table = tabulate([row.cells() for row in rows], headers=HEAD, tablefmt="github", disable_numparse=True)
    where = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU autocast, one thread"
    worst = max((100 * (row.after - row.exact) / row.n for row in rows), default=0.0)
    first = max((100 * (row.before - row.exact) / row.n for row in rows), default=0.0)
    most = f"Most above float32: {first:+.1f} points before the last search, {worst:+.1f} after it."
    left = f" Not computed yet: {', '.join(missing)}." if missing else ""
    setting = f"{steps} steps; {where}; torch {torch.__version__}. {most}{left}"
    return f"# {precision} search beside float32\n\n{about}\n\n{setting}\n\n{table}\n"


@click.command()
@click.option("--world", "worlds", multiple=True, default=WORLDS, show_default=True)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--examples", type=click.IntRange(1), default=500, show_default=True)
@click.option("--vit", type=click.IntRange(0), default=32, show_default=True, help="Examples of vit-b-32; 0 for none.")
@click.option("--size", default="vit-b-32", show_default=True, help="The tower with random weights.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "tf32"]), default="bf16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--store", type=click.Path(path_type=Path), default="precision-store", show_default=True)
@click.option("--table-only", is_flag=True, help="Compute nothing: write the table of the rows in the store.")
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file, written after every row.")
def main(
    worlds: tuple[str, ...],
    models: tuple[str, ...],
    examples: int,
    vit: int,
    size: str,
    steps: int,
    precision: Precision,
    device: str,
    store: Path,
    table_only: bool,
    out: Path | None,
) -> None:
    """Compare the survivors of a search in low precision with those of one in float32."""
    pairs = [(world, model, examples, steps) for model in models for world in worlds]
    store.mkdir(exist_ok=True)
    end = f"{precision}-{device.partition(':')[0]}.json"
    every = [*([(size, "random", vit, min(steps, 50))] if vit else []), *pairs]
    files = {store / f"{'-'.join(map(str, row))}-{end}": row for row in every}
    for file, row in files.items():
        if not file.exists() and not table_only:
            bench, attack = make(*row, device)
            file.write_text(json.dumps(asdict(compare(bench, attack, precision, row[1]))))
        rows = [Row(**json.loads(one.read_text())) for one in files if one.exists()]
        missing = [f"{other[0]} {other[1]}" for one, other in files.items() if not one.exists()]
        if not table_only:
            click.echo(" ".join(map(str, Row(**json.loads(file.read_text())).cells())), err=True)
        if out:
            out.write_text(page(rows, missing, precision, steps, device), encoding="utf-8")
    click.echo(page(rows, missing, precision, steps, device))


if __name__ == "__main__":
    main()
