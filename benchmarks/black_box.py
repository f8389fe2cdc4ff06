"""Compares rays and hopskipjump with attacks of ART at equal budgets: `python benchmarks/black_box.py --out FILE.md`.

Every query of every attack is counted in the callable, and the distance of an example is that of the nearest
misclassified point among its first queries, whichever attack asked. ART (adversarial-robustness-toolbox) is needed, and
nothing else of rlbench needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from rlbench.attacks.hopskipjump import HopSkipJump
from rlbench.attacks.rays import RayS
from rlbench.core import Ball, Norm
from rlbench.core.seeds import ExampleStreams, generator
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder

HEAD = ["model", "norm", "attack", "queries", "median distance", "mean", "over the minimum"]
Classify = Callable[[Tensor], Tensor]  # (B, *shape) -> (B, C)


class Spent(Exception):
    """The budget of an example is spent."""


class Counter:
    """Labels of one example's queries, up to a budget, and the nearest misclassified one."""

    def __init__(self, classify: Classify, x: Tensor, y: int, norm: Norm, budgets: Sequence[int]) -> None:
        self.classify, self.x, self.y, self.budgets = classify, x, y, budgets
        self.order = float("inf") if norm == "linf" else 2
        self.asked, self.nearest, self.found = 0, float("inf"), dict[int, float]()

    def __call__(self, points: Tensor) -> Tensor:
        """(K, *shape) -> (K, C) logits. Raises: Spent."""
        with torch.no_grad():
            logits = self.classify(points)
        for point, label in zip(points, logits.argmax(1).tolist(), strict=True):
            if self.asked == self.budgets[-1]:
                raise Spent
            self.asked += 1
            if label != self.y:
                far = float(torch.linalg.vector_norm((point - self.x).double().flatten(), self.order))
                self.nearest = min(self.nearest, far)
            if self.asked in self.budgets:
                self.found[self.asked] = self.nearest
        return logits


def ours(attack: str, counter: Counter, index: int) -> None:
    """Runs rlbench's attack on one example."""
    x, y = counter.x[None], torch.tensor([counter.y])
    ball = Ball("linf" if attack == "rays" else "l2", 1e-9, 0.0, 1.0)

    class Box:
        batch_size = 64

        def __call__(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
            return counter(points)

    if attack == "rays":
        RayS(queries=counter.budgets[-1]).nearest(Box(), x, y, ball)
    else:
        HopSkipJump(queries=counter.budgets[-1]).nearest(Box(), x, y, ball, ExampleStreams(0, (str(index),), "art"))


def art(attack: str, norm: Norm, counter: Counter, index: int, classes: int) -> None:
    """Runs ART's attack on one example."""
    from art.attacks.evasion import BoundaryAttack
    from art.attacks.evasion import HopSkipJump as ArtHopSkipJump
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    def predict(points: np.ndarray) -> np.ndarray:
        labels = counter(torch.from_numpy(points.astype(np.float32))).argmax(1)
        return np.asarray(torch.nn.functional.one_hot(labels, classes).numpy(), dtype=np.float32)

    box: Any = BlackBoxClassifierNeuralNetwork(predict, tuple(counter.x.shape), classes, clip_values=(0.0, 1.0))
    order: Any = np.inf if norm == "linf" else 2
    np.random.seed(index)
    if attack == "HopSkipJump":
        made: Any = ArtHopSkipJump(box, targeted=False, norm=order, max_iter=10_000, max_eval=10_000, verbose=False)
    else:
        made = BoundaryAttack(box, targeted=False, max_iter=100_000, verbose=False)
    made.generate(counter.x[None].numpy(), y=np.eye(classes, dtype=np.float32)[[counter.y]])


def affine(n: int) -> tuple[Classify, Tensor, Tensor, dict[Norm, Tensor]]:
    """A linear model of two classes on 64 coordinates, n examples, and their minimal norms."""
    g = generator("black box")
    w = torch.from_numpy(g.standard_normal((2, 64))).float() / 8
    x = torch.from_numpy(0.5 + 0.2 * (g.random((n, 1, 8, 8)) - 0.5)).float()

    def classify(x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ w.T

    z, delta = classify(x).double(), (w[0] - w[1]).double()
    gap = (z[:, 0] - z[:, 1]).abs()
    return classify, x, z.argmax(1), {"linf": gap / delta.abs().sum(), "l2": gap / delta.norm()}


def world(model: str, n: int) -> tuple[Classify, Tensor, Tensor, dict[Norm, Tensor]]:
    """A mini encoder on thermal test examples that it has right; no minimum is known."""
    suite, encoder = load_suite("thermal"), load_encoder(model, "thermal")
    found = suite.task.load(encoder.boxes["thermal"], 0, 4 * n)
    head = zero_shot(encoder, "thermal", suite.task.classes, suite.task.templates)
    with torch.no_grad():
        right = (head(found.x).argmax(1) == found.y).nonzero()[:n, 0]
    return head, found.x[right], found.y[right], {}


RUNS: list[tuple[Norm, str]] = [
    ("linf", "rays"),
    ("linf", "ART HopSkipJump"),
    ("l2", "hopskipjump"),
    ("l2", "ART HopSkipJump"),
    ("l2", "ART Boundary"),
]


def compare(name: str, n: int, budgets: Sequence[int]) -> list[list[object]]:
    """Rows of the table for a model."""
    classify, x, y, least = affine(n) if name == "linear" else world(name, n)
    classes, rows = classify(x[:1]).shape[1], list[list[object]]()
    for norm, attack in RUNS:
        counters = [Counter(classify, one, int(label), norm, budgets) for one, label in zip(x, y, strict=True)]
        for index, counter in enumerate(counters):
            try:
                if attack.startswith("ART"):
                    art(attack.removeprefix("ART "), norm, counter, index, classes)
                else:
                    ours(attack, counter, index)
            except Spent:
                pass
        for budget in budgets:
            far = torch.tensor([counter.found.get(budget, counter.nearest) for counter in counters]).double()
            over = f"{float((far / least[norm]).median() - 1):.1%}" if least else "-"
            rows.append([name, norm, attack, budget, f"{far.median():.4f}", f"{far.mean():.4f}", over])
    return rows


@click.command()
@click.option("--model", "models", multiple=True, default=("linear", "languagebind", "rlbind"), show_default=True)
@click.option("--examples", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--budget", "budgets", multiple=True, type=click.IntRange(1), default=(300, 1000, 3000), show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(models: tuple[str, ...], examples: int, budgets: tuple[int, ...], out: Path | None) -> None:
    """Compare the label-only attacks with ART's."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # ART's own
    rows = [row for name in models for row in compare(name, examples, sorted(budgets))]
    table = tabulate(rows, headers=HEAD, tablefmt="github", disable_numparse=True)
    click.echo(table)
    if out is not None:
        out.write_text(f"# Label-only attacks beside ART\n\n{examples} examples per model.\n\n{table}\n")


if __name__ == "__main__":
    main()
