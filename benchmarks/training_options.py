"""What N-FGSM, AWP and GRACE's volume change at equal passes: benchmarks/training_options.md.

python benchmarks/training_options.py run OUT.jsonl [--world thermal] [--method tecoa] [--share 0.5] [--examples 400]
python benchmarks/training_options.py table OUT.jsonl [--out benchmarks/training_options.md]

`run` appends a line per run, and skips those that OUT.jsonl has, so it can be stopped at any time.

Each method is trained with its recipe's one-step adversary, with N-FGSM, with AWP, with both, and with AWP and the
volume of its features (weight 1), with as many steps as a share of its recipe's passes (forward and backward together)
pays for. Nothing is tuned, and no test example is used: accuracies are those of the validation split, clean and under
apgd-ce and then apgd-t, at the radius of training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, cast

import click
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from rlbench.core import Modality, Threat, registry
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import format_p, holm, wilson
from rlbench.core.stats.paired import Pairs
from rlbench.core.threat import ball_of, parse_eps
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.judge import attack_and_judge
from rlbench.engine.attack.meter import Meter
from rlbench.training.data import make_validation_task
from rlbench.training.recipe import Recipe, load_recipe
from rlbench.training.run import train

WORLDS, METHODS = ("thermal", "image"), ("tecoa", "fare", "rlbind")
AWP = 0.005  # the paper's for a loss with a clean term
OPTIONS: dict[str, dict[str, object]] = {
    "recipe": {},
    "n-fgsm": {"adversary": "n-fgsm"},
    "awp": {"awp": AWP},
    "n-fgsm, awp": {"adversary": "n-fgsm", "awp": AWP},
    "awp, volume": {"awp": AWP, "extras.gram-volume": 1.0},
}
ATTACKS: tuple[tuple[str, dict[str, int]], ...] = (("apgd-ce", {"steps": 20}), ("apgd-t", {"steps": 20, "targets": 3}))
BATCH = 128
Line = dict[str, Any]
Key = tuple[str, str, str, float, int]


def count_steps(method: str, world: Modality, options: dict[str, object], share: float) -> int:
    """Counts the steps that a share of the recipe's own passes pays for."""
    own, recipe = (load_recipe(method, modality=world, overrides=given) for given in ({}, options))
    steps = own.epochs * (own.examples // own.batch)
    return round(share * steps * sum(own.passes()) / sum(recipe.passes()))


def train_and_measure(world: Modality, method: str, name: str, share: float, examples: int) -> Line:
    """Trains one row of the table, and measures it."""
    options = OPTIONS[name]
    given = {**options, "steps": count_steps(method, world, options, share), "validation": 16, "validate": 100_000}
    recipe = load_recipe(method, modality=world, overrides=given)
    began = process_time()
    with TemporaryDirectory() as place:
        run = train(method, modalities=[world], out=Path(place) / "run", overrides=given, device="cpu")
        seconds = process_time() - began
        clean, robust = measure(str(run), recipe, world, examples)
        log = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    cosines = [line["cosine"] for line in log if "cosine" in line]
    return {
        "world": world,
        "method": method,
        "options": name,
        "share": share,
        "examples": examples,
        "steps": recipe.steps,
        "passes": [n * recipe.steps * recipe.batch for n in recipe.passes()],
        "cpu_seconds": round(seconds, 1),
        "cosine": [round(float(np.mean(part)), 3) for part in (cosines[:20], cosines[-20:])] if cosines else [],
        "clean": pack(clean),
        "robust": pack(robust),
    }


def measure(model: str, recipe: Recipe, world: Modality, n: int) -> tuple[Tensor, Tensor]:
    """Measures (n,) bool, correct clean and correct under all attacks, on the validation split of the seen classes."""
    task = make_validation_task(recipe, world, None)
    assert task is not None, "a world has a validation split"
    encoder = load_encoder(model, world)
    head = zero_shot(encoder, world, task.classes, task.templates)
    data, ball = task.load(head.box, 0, n, "val"), ball_of(Threat("linf", parse_eps(recipe.eps)), head.box)
    with torch.no_grad():
        clean = torch.cat([head(part).argmax(1) for part in data.x.split(BATCH)]) == data.y
    robust = clean.clone()
    for name, fields in ATTACKS:
        rows = robust.nonzero()[:, 0]
        streams = ExampleStreams(0, data.ids, name).take(rows.tolist())
        meter = Meter(head, len(rows), batch_size=BATCH)
        attack = registry.make("attack", name, fields)
        robust[rows] = attack_and_judge(attack, meter, data.x[rows], data.y[rows], ball, streams).judgement.correct
    return clean, robust


def pack(flags: Tensor) -> str:
    """(n,) bool as a text of 0 and 1."""
    return "".join("1" if one else "0" for one in flags.tolist())


def unpack(text: str) -> np.ndarray:
    """The (n,) bool of `pack`."""
    return np.array([one == "1" for one in text])


def read(out: Path) -> list[Line]:
    """The lines so far."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.is_file() else []


def key_of(line: Line) -> Key:
    """What makes a line a run of its own."""
    return cast(Key, tuple(line[name] for name in ("world", "method", "options", "share", "examples")))


def share_of(line: Line, name: str) -> str:
    """An accuracy in % with its 95% interval."""
    flags = unpack(line[name])
    low, high = wilson(int(flags.sum()), len(flags))
    return f"{100 * flags.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def compare(line: Line, plain: Line, name: str) -> Pairs:
    """The pairs of the plain run (before) and this one (after)."""
    return Pairs.of(unpack(plain[name]), unpack(line[name]))


def gain(pairs: Pairs, adjusted: float) -> str:
    """A gain in points with its 95% interval, the p-value and Holm's."""
    low, high = pairs.interval()
    return f"{-pairs.drop:+.1f} [{-high:+.1f}, {-low:+.1f}], p {format_p(pairs.p)}, Holm {format_p(adjusted)}"


def make_rows(lines: Sequence[Line]) -> list[list[object]]:
    """The rows of the table; a run is compared with its method's plain run, and Holm's family is all comparisons."""
    plain = {(line["world"], line["method"]): line for line in lines if line["options"] == "recipe"}
    order = {key: i for i, key in enumerate(product(WORLDS, METHODS, OPTIONS))}
    known = [line for line in lines if (line["world"], line["method"]) in plain]
    known.sort(key=lambda line: order.get((line["world"], line["method"], line["options"]), len(order)))
    others = [line for line in known if line["options"] != "recipe"]
    adjusted: dict[tuple[Key, str], float] = {}
    for name in ("clean", "robust"):
        ps = [compare(line, plain[line["world"], line["method"]], name).p for line in others]
        adjusted |= {(key_of(line), name): p for line, p in zip(others, holm(ps), strict=True)}
    rows: list[list[object]] = []
    for line in known:
        base = plain[line["world"], line["method"]]
        row = [line["world"], line["method"], line["options"], line["steps"]]
        row.append(" ".join(f"{n / 1000:.0f}k" for n in line["passes"]))
        for name in ("clean", "robust"):
            row.append(share_of(line, name))
            pairs = compare(line, base, name)
            row.append("-" if line is base else gain(pairs, adjusted[key_of(line), name]))
        row.append(" to ".join(f"{value:.2f}" for value in line["cosine"]) or "-")
        rows.append(row)
    return rows


@click.group()
def main() -> None:
    """Compare training options at equal passes."""


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--world", "worlds", multiple=True, default=WORLDS, show_default=True)
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option("--options", "names", multiple=True, type=click.Choice(list(OPTIONS)), default=list(OPTIONS))
@click.option("--share", type=click.FloatRange(0.01), default=0.5, show_default=True, help="Of the recipe's passes.")
@click.option("--examples", type=click.IntRange(1), default=400, show_default=True)
def run(
    out: Path, worlds: Sequence[Modality], methods: Sequence[str], names: Sequence[str], share: float, examples: int
) -> None:
    """Append the missing runs to OUT."""
    torch.set_num_threads(1)
    done = {key_of(line) for line in read(out)}
    for world, method, name in product(worlds, methods, names):
        if (world, method, name, share, examples) in done:
            continue
        line = train_and_measure(world, method, name, share, examples)
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        click.echo(f"{world} {method} {name}: clean {share_of(line, 'clean')}, robust {share_of(line, 'robust')}")


@main.command()
@click.argument("lines", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def table(lines: Path, out: Path | None) -> None:
    """Print the table of LINES."""
    found = read(lines)
    head = ["world", "method", "options", "steps", "passes f b"]
    head += ["clean, %", "clean, gain", "robust, %", "robust, gain", "cosine"]
    shares, sizes = ({line[name] for line in found} for name in ("share", "examples"))
    about = (
        f"{' '.join((__doc__ or '').split(chr(10) * 2)[3].split())} Share {', '.join(map(str, sorted(shares)))}; "
        f"n = {', '.join(map(str, sorted(sizes)))}; AWP {AWP}; one seed. Gains in points over the method's first row, "
        "on the same examples, with McNemar's exact test; Holm over all comparisons of a column. The cosine is that of "
        "the watch for collapse, in the first and the last 20 steps. Intervals and tests are over examples, not over "
        "seeds of training. A share far below 1 says nothing about a full run."
    )
    rows = tabulate(make_rows(found), headers=head, tablefmt="github", disable_numparse=True)
    text = f"# Training options at equal passes\n\n{about}\n\n{rows}\n"
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
