"""Compares rlbench's worst case with standard AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690).

    python benchmarks/standard.py --suite thermal --model fare --eps 8/255 --examples 200 --seeds 0 1 2

rlbench's side is the worst case of --attacks, by default apgd-ce and apgd-t as in the suites, once per seed. The
standard is pyautoattack's, with its own batches and seed 0: apgd-ce, apgd-t, fab-t, and square with 5000 queries, each
on the survivors of those before it. Both start from all clean-correct examples, and the same judge decides. `apart`
counts the examples on which the standard and some seed of rlbench disagree. The standard spends thousands of passes on
a survivor: --most M gives it only M of the examples that survive every seed of rlbench, the half of them with the
smallest margins, the rest a fixed random sample. Its number of survivors is then an estimate, and the bound next to the
mean difference applies the upper end of Wilson's 95% interval of the share that it breaks in the random sample to all
examples that it was not given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from unittest import mock

import torch
from engine import machine
from pyautoattack import AutoAttack
from torch import Tensor, nn

import rlbench
from rlbench.core import Ball, Examples, Norm, Threat
from rlbench.core.machine import reproducible
from rlbench.core.stats.metrics import margin, wilson
from rlbench.core.suite import load_suite
from rlbench.core.threat import ball_of, parse_eps, project
from rlbench.encoders.heads import ZeroShot, zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.judge import judge

HEAD = (
    "| suite | model | threat | n | clean-correct | ours, by seed | standard | was given | apart | ours less standard, "
    "points by seed | mean | bound | CPU s a seed | standard's |\n| --- | --- | --- |" + " ---: |" * 11
)


@dataclass(frozen=True)
class Setting:
    """A suite's first n test examples, a model's classifier, and a ball."""

    name: str
    examples: Examples
    head: ZeroShot
    threat: Threat
    ball: Ball
    batch_size: int

    @property
    def correct(self) -> Tensor:
        """(N,) bool: correct without an attack."""
        with torch.no_grad():
            return self.head(self.examples.x).argmax(1) == self.examples.y


@dataclass(frozen=True)
class Found:
    """The result of one seed of rlbench.

    Attributes:
        stands: (N,) bool, the survivors.
        margins: (N,) the smallest margin of any attack's last point.
        seconds: of CPU time.
    """

    stands: Tensor
    margins: Tensor
    seconds: float


def ours(at: Setting, attacks: Sequence[str], seed: int) -> Found:
    """The worst case of the attacks, each on the survivors of those before it, which gives the same result."""
    x, y, ids = at.examples.x, at.examples.y, at.examples.ids
    begun, margins = process_time(), torch.full((len(x),), float("inf"))
    left = at.correct.nonzero()[:, 0]
    stands = at.correct
    for name in attacks:
        found = rlbench.attack(
            at.head,
            x[left],
            y[left],
            name,
            norm=at.threat.norm,
            eps=at.threat.eps,
            seed=seed,
            ids=[ids[i] for i in left.tolist()],
            batch_size=at.batch_size,
        )
        with torch.no_grad():
            margins[left] = torch.minimum(margins[left], margin(at.head(found.x_adv), y[left]))
        stands[left] = ~found.broken
        left = stands.nonzero()[:, 0]
        if not len(left):
            break
    return Found(stands, margins, process_time() - begun)


class Model(nn.Module):
    """A classifier as the module that pyautoattack expects."""

    def __init__(self, head: ZeroShot) -> None:
        super().__init__()
        self.head = head
        self.register_parameter("device_of", nn.Parameter(torch.zeros(1), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C) logits."""
        return self.head(x)


def standard(at: Setting, rows: Tensor) -> dict[int, str]:
    """Runs the standard on the examples `rows`; by broken row, the name of the attack that breaks it."""
    norm, broken = {"linf": "Linf", "l2": "L2"}[at.ball.norm], dict[int, str]()
    suite = AutoAttack(Model(at.head).eval(), norm=norm, eps=at.ball.radius, seed=0, version="standard")
    n_classes = at.head(at.examples.x[:1]).shape[1]
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(9, n_classes - 1)
    for name in tuple(suite.attacks_to_run):
        rows = torch.tensor([row for row in rows.tolist() if row not in broken], dtype=torch.int64)
        if not len(rows):
            break
        suite.attacks_to_run = [name]
        x, y = at.examples.x[rows], at.examples.y[rows]
        with mock.patch("pyautoattack.autoattack.checks"):  # its checks trace the whole process
            found, _ = suite.run_standard_evaluation(x, y, batch_size=at.batch_size)
        inside = project(found, x, at.ball)  # float32 rounding may leave the ball
        wrong = ~judge(at.head, inside, x, y, at.ball).correct
        broken.update(dict.fromkeys(rows[wrong].tolist(), name))
    return broken


@dataclass(frozen=True)
class Result:
    """Both sides of one setting.

    Attributes:
        at: the setting.
        model: its name.
        found: rlbench's result by seed.
        given: the rows that the standard attacked.
        drawn: those of them that were drawn at random.
        broken: by row, the standard attack that breaks it.
        seconds: CPU time of the standard.
    """

    at: Setting
    model: str
    found: Sequence[Found]
    given: Tensor
    drawn: Tensor
    broken: dict[int, str]
    seconds: float

    @property
    def rest(self) -> int:
        """How many clean-correct examples the standard was not given."""
        return int(self.at.correct.sum()) - len(self.given)

    def survivors(self, share: float) -> float:
        """The survivors of the standard if it breaks this share of the rest."""
        return len(self.given) - len(self.broken) + self.rest * (1 - share)

    def row(self) -> str:
        """A row of the table."""
        hits, n = sum(row in self.broken for row in self.drawn.tolist()), len(self.at.correct)
        share, most = (hits / len(self.drawn), wilson(hits, len(self.drawn))[1]) if self.rest else (0.0, 0.0)
        alive = [int(one.stands.sum()) for one in self.found]
        points = [100 * (a - self.survivors(share)) / n for a in alive]
        mean = sum(points) / len(points)
        bound = f"{100 * (sum(alive) / len(alive) - self.survivors(most)) / n:+.2f}" if self.rest else "exact"
        cost = sum(one.seconds for one in self.found) / len(self.found)
        counts = f"{n} | {int(self.at.correct.sum())} | {', '.join(map(str, alive))} | {self.survivors(share):g}"
        gaps = ", ".join(f"{p:+.1f}" for p in points)
        return (
            f"| {self.at.name} | {self.model} | {self.at.threat} | {counts} | {len(self.given)} | {len(self.apart())} "
            f"| {gaps} | **{mean:+.2f}** | {bound} | {cost:.0f} | {self.seconds:.0f} |"
        )

    def apart(self) -> list[int]:
        """The rows on which the standard and some seed of rlbench disagree."""
        return [
            row
            for row in self.given.tolist()
            if any(bool(one.stands[row]) == (row in self.broken) for one in self.found)
        ]

    def details(self) -> list[str]:
        """A line for each row of `apart`."""
        lines = []
        for row in self.apart():
            each = [f"stands, margin {one.margins[row]:.3f}" if one.stands[row] else "broken" for one in self.found]
            peer = f"broken by {self.broken[row]}" if row in self.broken else "stands"
            name = f"{self.at.name}, {self.model}, {self.at.threat}, example {self.at.examples.ids[row]}"
            lines.append(f"- {name}: ours {'; '.join(each)}. Standard: {peer}.")
        return lines


def choose_rows(at: Setting, found: Sequence[Found], most: int | None) -> tuple[Tensor, Tensor]:
    """The rows for the standard, and those of them that are drawn at random."""
    always = torch.stack([one.stands for one in found]).all(0)
    near = torch.stack([one.margins for one in found]).amin(0).masked_fill(~always, float("inf"))
    order = near.argsort(stable=True)[: int(always.sum())]
    if most is None or len(order) <= most:
        return at.correct.nonzero()[:, 0], order[:0]
    first, others = order[: most // 2], order[most // 2 :]
    drawn = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[: most - len(first)]]
    return torch.cat([(at.correct & ~always).nonzero()[:, 0], first, drawn]).sort().values, drawn


def measure(suite_name: str, model: str, threat: Threat, options: argparse.Namespace) -> Result:
    """Runs rlbench by every seed, then the standard."""
    suite = load_suite(suite_name)
    encoder = load_encoder(model, suite.modality)
    box = encoder.boxes[suite.modality]
    if (box.low, box.high) != (0, 1):
        raise SystemExit(f"{suite_name}: pyautoattack needs inputs in [0, 1]; {model}'s are in [{box.low}, {box.high}]")
    head = zero_shot(encoder, suite.modality, suite.task.classes, suite.task.templates)
    examples = suite.task.load(box, 0, options.examples)
    at = Setting(suite_name, examples, head, threat, ball_of(threat, box), options.batch_size)
    found = [ours(at, options.attacks, seed) for seed in options.seeds]
    given, drawn = choose_rows(at, found, options.most)
    begun = process_time()
    broken = standard(at, given)
    return Result(at, model, found, given, drawn, broken, process_time() - begun)


def page(results: Sequence[Result], command: str) -> str:
    """The markdown page."""
    about = (__doc__ or "").split("\n\n")[-1].strip()
    rows = "\n".join(result.row() for result in results)
    apart = "\n".join(line for result in results for line in result.details())
    return f"# Beside AutoAttack's standard\n\n`{command}`\n\n{about}\n\n{machine()}.\n\n{HEAD}\n{rows}\n\n{apart}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", default=["thermal", "image"], help="suites, whose tasks are used")
    parser.add_argument("--model", nargs="+", default=["languagebind", "fare", "tecoa", "rlbind"])
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--eps", nargs="+", default=["4/255"])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of rlbench's attacks")
    parser.add_argument("--attacks", nargs="+", default=["apgd-ce", "apgd-t"], help="rlbench's; the worst case counts")
    parser.add_argument("--most", type=int, help="stable survivors to give to the standard; default: all")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, help="a markdown page; default: stdout")
    options = parser.parse_args()
    norm: Norm = options.norm
    results = []
    with reproducible("cpu"):
        for name in options.suite:
            for model in options.model:
                for eps in options.eps:
                    results.append(measure(name, model, Threat(norm, parse_eps(eps)), options))
                    sys.stderr.write("\n".join([results[-1].row(), *results[-1].details()]) + "\n")
    text = page(results, " ".join(["python benchmarks/standard.py", *sys.argv[1:]]))
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
