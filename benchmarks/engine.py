"""Compares rlbench's attack engine with pyautoattack (APGD-CE, APGD-T) and torchattacks (PGD, PGDL2).

    python benchmarks/engine.py --suite thermal --model rlbind --examples 64

The matrix: every eps of --eps-linf and --eps-l2 under PGD-20, APGD-CE-100 and APGD-T-9x100, each attack alone. rlbench
runs it as `rlbench run` does; the peers run cell by cell as their authors intend: torchattacks also attacks
misclassified examples, pyautoattack only those that are correct when clean. Both run in this process, in turn, in one
thread, on the same examples: each classifies the clean examples, attacks, and has the judge classify the results of
every cell. Neither writes a file. The same code counts both sides: f+b is a forward pass with its backward pass, f a
forward pass alone (by the judge, or at the last point of an attack). The ratio of all passes counts f+b as two and f as
one, roughly their cost. CPU time is the least of --repeat runs. `outside` is the share of it outside of the encoder's
passes, `batch` the mean number of examples per call of the encoder. The floor is the least that the protocol requires:
all steps for a survivor (20, 100, targets x 100), and the steps up to the break for a broken example, with its targets
in sequence or in parallel, whichever is cheaper.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch
from counting import Counter, Spent
from torch import Tensor, nn

from rlbench.attacks.search import pool
from rlbench.core import Adversarial, Ball, Clean, Norm, Suite, Threat
from rlbench.core.machine import reproducible
from rlbench.core.suite import load_suite
from rlbench.core.threat import ball_of, parse_eps, project
from rlbench.engine.attack.judge import judge
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.cells.groups import Group, groups
from rlbench.store.blocks import BLOCK, Block

STEPS = {"pgd": 20, "apgd-ce": 100, "apgd-t": 100}
Attack = Callable[[Tensor, Tensor], Tensor]
PEERS = {"pgd": "torchattacks", "apgd-ce": "pyautoattack", "apgd-t": "pyautoattack"}


@dataclass
class Side:
    """The results of one side.

    Attributes:
        cells: the cost of each cell.
        correct: (N,) bool of each cell, the survivors.
        backwards: (N,) of each cell, the backward passes of every example.
        total: the cost of the matrix.
    """

    cells: dict[str, Spent] = field(default_factory=dict)
    correct: dict[str, Tensor] = field(default_factory=dict)
    backwards: dict[str, Tensor] = field(default_factory=dict)
    total: Spent = field(default_factory=Spent)


class Model(nn.Module):
    """A bench's classifier as the module that the peers expect."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.classify = bench.classifier
        self.register_parameter("device_of", nn.Parameter(torch.zeros(1), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C) logits."""
        return self.classify(x)


def matrix(suite: Suite, eps: Mapping[Norm, Sequence[str]], examples: int) -> Suite:
    """The suite's task with the benchmark's cells: each attack by ascending eps, as from a suite file."""
    cells = []
    for attack in STEPS:
        for norm, texts in eps.items():
            radii = sorted(map(parse_eps, texts))
            cells += [Adversarial(attack, Threat(norm, e), (), tuple(radii[:i])) for i, e in enumerate(radii)]
    return replace(suite, perturbations=(Clean(), *cells), examples=examples)


def ours(suite: Suite, bench: Bench, counter: Counter) -> Side:
    """Runs the matrix block by block like `rlbench run`; a cell's cost is its blocks', the total is `counter`'s."""
    side, attacks = Side(), [group for group in groups(suite.perturbations) if group.attacks]

    def work() -> list[list[Block]]:
        found = []
        for start in range(0, suite.examples, BLOCK):
            span = start, min(start + BLOCK, suite.examples)
            clean = evaluate(bench, [Group()], *span, None, lambda n: None)[0]
            found.append(evaluate(bench, attacks, *span, clean, lambda n: None))  # type: ignore[arg-type]
        return found  # type: ignore[return-value]

    side.total, found = counter.spend(work)
    for k, cell in enumerate(member for group in attacks for member in group.members):
        blocks = [results[k] for results in found]
        side.correct[str(cell)] = torch.cat([torch.from_numpy(block.correct) for block in blocks])
        side.backwards[str(cell)] = torch.cat([torch.from_numpy(block.backwards) for block in blocks])
        fb = int(side.backwards[str(cell)].sum())
        side.cells[str(cell)] = Spent(fb, sum(int(block.forwards.sum()) for block in blocks) - fb)
    return side


def peers(suite: Suite, bench: Bench, counter: Counter) -> Side:
    """Runs the same cells one by one with the peers, in batches of the bench's size."""
    examples = bench.inputs.load(0, suite.examples)
    model, side, every = Model(bench), Side(), torch.arange(suite.examples)

    def correct() -> Tensor:
        with torch.no_grad():
            return torch.cat([model(examples.x[r]).argmax(1) for r in every.split(bench.batch_size)]) == examples.y

    side.total, right = counter.spend(correct)
    for cell in suite.perturbations[1:]:
        ball = ball_of(cell.threat, bench.box)
        attack = _peer(cell.attack, ball, model, len(suite.task.classes))
        rows = every if cell.attack == "pgd" else every[right]

        def survivors(rows: Tensor = rows, ball: Ball = ball, attack: Attack = attack) -> Tensor:
            alive = right.clone()
            for r in rows.split(bench.batch_size):
                x, y = examples.x[r], examples.y[r]
                inside = project(attack(x, y).detach(), x, ball)  # float32 rounding may leave the ball
                alive[r] &= judge(model, inside, x, y, ball).correct
            return alive

        side.cells[str(cell)], side.correct[str(cell)] = counter.spend(survivors)
        side.total = side.total + side.cells[str(cell)]
    return side


def _peer(name: str, ball: Ball, model: Model, n_classes: int) -> Attack:
    """The peer's attack (x, y) -> x_adv with its own defaults and the protocol's steps."""
    norm, steps = {"linf": "Linf", "l2": "L2"}[ball.norm], STEPS[name]
    if name == "pgd":
        import torchattacks

        kind = torchattacks.PGD if ball.norm == "linf" else torchattacks.PGDL2
        return kind(model, eps=ball.radius, alpha=2.5 * ball.radius / steps, steps=steps)  # type: ignore[no-any-return]
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    fields = {"n_iter": steps, "norm": norm, "eps": ball.radius, "seed": 0, "device": "cpu"}
    if name == "apgd-ce":
        return APGDAttack(model, loss="ce", **fields).perturb  # type: ignore[no-any-return]
    return APGDAttack_targeted(model, n_target_classes=min(9, n_classes - 1), **fields).perturb  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Result:
    """Both sides on one suite and model; `apart` is rlbench again, with one target at a time."""

    suite: Suite
    model: str
    own: Side
    peer: Side
    apart: Side

    @property
    def floor(self) -> int:
        """The f+b passes of the protocol's floor."""
        total = 0
        for cell in self.suite.perturbations[1:]:
            jobs = min(9, len(self.suite.task.classes) - 1) if cell.attack == "apgd-t" else 1
            alive = self.own.correct[str(cell)]
            either = [side.backwards[str(cell)] for side in (self.own, self.apart)]
            total += int(alive.sum()) * STEPS[cell.attack] * jobs + int(torch.minimum(*either)[~alive].sum())
        return total

    def table(self) -> list[str]:
        """Markdown lines: a row per cell, and the totals."""
        rows = [
            "| cell | peer | survivors | peer's | f+b | peer's | f | peer's | ratio |",
            "| --- | --- |" + " ---: |" * 7,
        ]
        for cell in self.suite.perturbations[1:]:
            a, b = self.own.cells[str(cell)], self.peer.cells[str(cell)]
            alive = [int(side.correct[str(cell)].sum()) for side in (self.own, self.peer)]
            counts = f"{alive[0]} | {alive[1]} | {a.fb} | {b.fb} | {a.f} | {b.f} | {b.fb / max(a.fb, 1):.1f}"
            rows.append(f"| {cell} | {PEERS[cell.attack]} | {counts} |")
        a, b = self.own.total, self.peer.total
        return [*rows, f"| **all** | | | | {a.fb} | {b.fb} | {a.f} | {b.f} | **{b.fb / a.fb:.2f}** |"]

    def summary(self) -> str:
        """A row of the summary."""
        a, b, n, name = self.own.total, self.peer.total, self.suite.examples, f"{self.suite.name} | {self.model}"
        cells = [str(cell) for cell in self.suite.perturbations[1:]]
        robust = [100 * float(torch.stack([side.correct[c] for c in cells]).all(0).sum()) / n for side in self.sides]
        passes, cpu = b.passes / a.passes, b.seconds / a.seconds
        shares = f"{100 * a.outside:.0f} | {100 * b.outside:.0f} | {a.batch:.0f} | {b.batch:.0f}"
        return (
            f"| {name} | {n} | {robust[0]:.1f} | {robust[1]:.1f} | {self.weaker()} | {a.fb} | {b.fb} "
            f"| **{b.fb / a.fb:.2f}** | {a.fb / self.floor:.3f} | **{passes:.2f}** | {a.seconds:.1f} | {b.seconds:.1f} "
            f"| **{cpu:.2f}** | {cpu / passes:.2f} | {shares} |"
        )

    @property
    def sides(self) -> tuple[Side, Side]:
        """Ours and the peers'."""
        return self.own, self.peer

    def weaker(self) -> str:
        """The range over cells of rlbench's survivors less the peer's."""
        gaps = [int(self.own.correct[c].sum() - self.peer.correct[c].sum()) for c in self.own.cells]
        return f"{min(gaps):+d} to {max(gaps):+d}"


SUMMARY = (
    "| suite | model | examples | worst case, % | peers' | survivors by cell, ours less theirs | f+b | peers' | ratio "
    "| over floor | ratio of all passes | CPU s | peers' | ratio | over that of passes | outside, % | peers' | batch "
    "| peers' |\n| --- | --- |" + " ---: |" * 17
)


def measure(suite: Suite, model: str, batch_size: int, repeat: int) -> Result:
    """Runs both in turn, and rlbench again with one target at a time, after a short warm-up."""
    bench = prepare(suite, model, batch_size=batch_size)
    for start in range(0, suite.examples, BLOCK):
        bench.inputs.load(start, min(start + BLOCK, suite.examples))  # rendered for both
    bench.inputs.load(0, suite.examples)
    counter = Counter()
    with counter.on(type(bench.classifier.encoder)), reproducible("cpu"):
        ours(replace(suite, perturbations=suite.perturbations[:2], examples=8), bench, counter)
        runs = [(ours(suite, bench, counter), peers(suite, bench, counter)) for _ in range(repeat)]
        own, peer = (min(sides, key=lambda side: side.total.seconds) for sides in zip(*runs, strict=True))
        with mock.patch.object(pool, "ALONGSIDE", 0):
            apart = ours(suite, bench, counter)
    return Result(suite, model, own, peer, apart)


def machine() -> str:
    """The processor and the versions behind the numbers."""
    names = ("rlbind-bench", "torch", "pyautoattack", "torchattacks")
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return f"{cpu}, one thread; Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def page(results: Sequence[Result], command: str) -> str:
    """The markdown page."""
    about = (__doc__ or "").split("\n\n")[-1].strip()
    details = "\n\n".join(f"## {r.suite.name}, {r.model}\n\n" + "\n".join(r.table()) for r in results)
    rows = "\n".join(r.summary() for r in results)
    return (
        f"# The engine against its peers\n\n`{command}`\n\n{about}\n\n{machine()}.\n\n{SUMMARY}\n{rows}\n\n{details}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", default=["thermal", "image"], help="suites, whose tasks are used")
    parser.add_argument("--model", nargs="+", default=["languagebind", "fare", "rlbind"])
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--eps-linf", nargs="*", default=["2/255", "4/255", "8/255"])
    parser.add_argument("--eps-l2", nargs="*", default=["0.5", "1"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=1, help="runs of both sides; the fastest counts")
    parser.add_argument("--out", type=Path, help="a markdown page, such as benchmarks/engine.md; default: stdout")
    options = parser.parse_args()
    results = []
    for name in options.suite:
        for model in options.model:
            eps: dict[Norm, Sequence[str]] = {"linf": options.eps_linf, "l2": options.eps_l2}
            suite = matrix(load_suite(name), eps, options.examples)
            results.append(measure(suite, model, options.batch_size, options.repeat))
            sys.stderr.write("\n".join([f"{name} {model}", *results[-1].table(), results[-1].summary()]) + "\n")
    text = page(results, " ".join(["python benchmarks/engine.py", *sys.argv[1:]]))
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
