"""What edits of class names cost, alone and with the input: `python benchmarks/text_edits.py --out text_edits.md`.

Accuracy in % on n test examples. `template`: the worst template for each input. `shared`: one list of names with at
most one edit, chosen greedily on as many validation examples. `own`: for each input one edit of its own class's name.
`any`: a list for each input, exact for one edit, drawn names for two. `input`: the attack adaptive, Linf 2/255.
`joint`: the input together with `own` or `any`, one edit. `names`: the number of names with at most one edit. The mini
encoders hash their text: an edit changes the hash of a whole word, and a class loses its hypernym. So these numbers
are about hashing, not about a language model; they show the threat model and its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import click
import torch
from tabulate import tabulate
from torch import Tensor

from rlbench.attacks.text.edits import edit_names
from rlbench.attacks.text.joint import Choice, Joint, NameChoice, TemplateChoice, choose_shared
from rlbench.core import Threat, registry
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.core.suite import load_suite
from rlbench.encoders.edited import embed_names, embed_templates
from rlbench.engine.attack.judge import attack_and_judge, judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench, prepare

WORLDS, MODELS = ("thermal", "image"), ("languagebind", "tecoa", "rlbind")
THREAT = Threat("linf", Fraction(2, 255))
HEAD = ["world", "model", "clean", "template", "shared", "own", "any", "any, 2", "input", "joint, own", "joint, any"]
HEAD += ["names"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of a bench: inputs x (N, *shape), labels y (N,), ids, and unit embeddings f (N, D)."""

    bench: Bench
    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    f: Tensor


def load(bench: Bench, examples: int, split: str) -> Batch:
    """The first examples of a split."""
    batch = bench.task.load(bench.box, 0, examples, split)  # type: ignore[arg-type]
    with torch.no_grad():
        f = torch.cat([bench.classifier.embed(part) for part in batch.x.split(128)])
    return Batch(bench, batch.x, batch.y, batch.ids, f)


def attack(data: Batch, anchors: Tensor, choose: Choice, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Attacks the examples that are correct (N,) bool; returns the points and which are still correct, (N,) bool."""
    rows, head = correct.nonzero()[:, 0], data.bench.classifier
    meter = Meter(lambda x: head.logit_scale * head.embed(x) @ anchors.T, len(rows), batch_size=128)
    classifier, x, y = Joint(meter, data.y[rows], choose), data.x[rows], data.y[rows]
    streams = ExampleStreams(0, tuple(data.ids[i] for i in rows.tolist()), "text edits")
    ball = data.bench.ball(THREAT)
    points, left = data.x.clone(), correct.clone()
    if len(rows):
        points[rows], judged = attack_and_judge(registry.make("attack", "adaptive"), classifier, x, y, ball, streams)
        left[rows] = judged.correct
    return points, left


def still_correct(data: Batch, anchors: Tensor, choose: Choice, points: Tensor) -> Tensor:
    """(N,) bool, the points that are correct with this choice of texts."""
    head = data.bench.classifier
    meter = Meter(lambda x: head.logit_scale * head.embed(x) @ anchors.T, len(points), batch_size=128)
    return judge(Joint(meter, data.y, choose), points, data.x, data.y, data.bench.ball(THREAT)).correct


def measure(world: str, model: str, examples: int) -> list[object]:
    """A row of the table."""
    bench = prepare(load_suite(world), model, batch_size=128)
    test, validation = (load(bench, examples, split) for split in ("test", "val"))
    task, encoder, own = bench.task, bench.encoder, bench.classifier.anchors

    def plain(scores: Tensor, y: Tensor) -> Tensor:
        return scores

    def count(scores: Tensor, choose: Choice) -> Tensor:
        return margin(choose(scores, test.y), test.y) > 0

    names = [edit_names(bench.class_names, k, limit=100) for k in (1, 2)]
    (one, owners), (two, owners_of_two) = (embed_names(encoder, task.classes, n, task.templates) for n in names)
    templates = embed_templates(encoder, task.classes, task.templates)
    shared = one[choose_shared(validation.f @ one.T, validation.y, owners)]
    clean = count(test.f @ own.T, plain)
    points, left = attack(test, own, plain, clean)
    alone, together = [], []
    for choose in (NameChoice(owners, only_own=True), NameChoice(owners)):
        text = clean & count(test.f @ one.T, choose)
        joint = attack(test, one, choose, text)[1] & still_correct(test, one, choose, points)
        assert not (joint & ~(text & left)).any()
        alone.append(text)
        together.append(joint)
    found = [clean, clean & count(test.f @ templates.T, TemplateChoice(len(task.templates)))]
    found += [clean & count(test.f @ shared.T, plain), *alone]
    found += [alone[1] & count(test.f @ two.T, NameChoice(owners_of_two)), left, *together]
    return [world, model, *(f"{100 * flags.float().mean():.1f}" for flags in found), len(owners)]


@click.command()
@click.option("--world", "worlds", multiple=True, default=WORLDS, show_default=True)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--examples", type=click.IntRange(1), default=200, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(worlds: tuple[str, ...], models: tuple[str, ...], examples: int, out: Path | None) -> None:
    """Measure text-side attacks on bundled encoders."""
    rows = []
    for world in worlds:
        for model in models:
            rows.append(measure(world, model, examples))
            click.echo(" ".join(map(str, rows[-1])), err=True)
    text = tabulate(rows, headers=HEAD, tablefmt="github", disable_numparse=True)
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    click.echo(text)
    if out:
        out.write_text(f"# Edits of class names\n\n{about} n = {examples}.\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
