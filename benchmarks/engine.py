"""rlbench's attack engine against pyautoattack (APGD-CE, APGD-T) and torchattacks (PGD, PGDL2), on one matrix.

    python benchmarks/engine.py --suite thermal --model rlbind --examples 64

The matrix: every eps of --eps-linf and --eps-l2 under PGD-20, APGD-CE-100 and APGD-T-9x100, each attack alone. rlbench
runs it as `rlbench run` does; the peers cell by cell as their authors use them: torchattacks attacks the misclassified
examples, too, pyautoattack the clean-correct ones. Both in this process, in turn, in one thread. One module counts both
sides' passes: f+b is a forward pass with its backward pass, f a forward pass alone. Survivors are the judge's, on both
sides. The floor is what any honest run of the protocol spends: all steps for a survivor (20, 100, targets x 100), and
for a broken example those up to the break, with targets one by one or side by side, whichever is cheaper for it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from rlbench import planner, runner
from rlbench.attacks import pool
from rlbench.cells import canonical
from rlbench.core import Adversarial, Ball, Clean, Norm, Suite, Threat
from rlbench.evaluate import Bench, prepare
from rlbench.fields import parse_eps
from rlbench.judge import judge
from rlbench.machine import settled
from rlbench.suite import load_suite
from rlbench.threat import ball_of, project

STEPS = {"pgd": 20, "apgd-ce": 100, "apgd-t": 100}
PEERS = {"pgd": "torchattacks", "apgd-ce": "pyautoattack", "apgd-t": "pyautoattack"}


@dataclass
class Spent:
    """Passes and CPU seconds; `fb` passes have a backward pass, `f` have none."""

    fb: int = 0
    f: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.fb + other.fb, self.f + other.f, self.seconds + other.seconds)


@dataclass
class Side:
    """What one side spent in each cell, whom it left correct there (N,), and in total."""

    cells: dict[str, Spent] = field(default_factory=dict)
    correct: dict[str, Tensor] = field(default_factory=dict)
    backwards: dict[str, Tensor] = field(default_factory=dict)  # of every example, (N,)
    total: Spent = field(default_factory=Spent)


class Counter:
    """Counts the examples that go through an encoder's `embed`, forward and backward."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    @contextmanager
    def on(self, kind: type) -> Iterator[None]:
        """Counts the calls of every encoder of this class."""
        embed = kind.embed  # type: ignore[attr-defined]

        def counted(encoder: object, x: Tensor, *rest: object, **named: object) -> Tensor:
            out: Tensor = embed(encoder, x, *rest, **named)
            self.forwards += len(x)
            if out.requires_grad:
                out.register_hook(lambda gradient: self._back(len(x)))  # type: ignore[no-untyped-call]
            return out

        with mock.patch.object(kind, "embed", counted):
            yield

    def _back(self, n: int) -> None:
        self.backwards += n

    def spend(self, work: Callable[[], Any]) -> tuple[Spent, Any]:
        """What `work` spends, and its result."""
        self.forwards = self.backwards = 0
        begun = process_time()
        result = work()
        return Spent(self.backwards, self.forwards - self.backwards, process_time() - begun), result


class Model(nn.Module):
    """A bench's classifier as the peers want it."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.classify = bench.classifier
        self.register_parameter("device_of", nn.Parameter(torch.zeros(1), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C) logits."""
        return self.classify(x)


def matrix(suite: Suite, eps: Mapping[Norm, Sequence[str]], examples: int) -> Suite:
    """The suite's task under the benchmark's cells: each attack by ascending eps, as a suite file would have it."""
    cells = []
    for attack in STEPS:
        for norm, texts in eps.items():
            radii = sorted(map(parse_eps, texts))
            cells += [Adversarial(attack, Threat(norm, e), (), tuple(radii[:i])) for i, e in enumerate(radii)]
    return replace(suite, perturbations=(Clean(), *cells), examples=examples)


def ours(suite: Suite, model: str, batch_size: int, counter: Counter) -> Side:
    """The whole matrix in one run, into a store that is thrown away; cells by its blocks, the total by `counter`."""
    side = Side()
    with tempfile.TemporaryDirectory() as folder:
        plan = planner.plan(suite, model, store=folder, batch_size=batch_size, workers=1, device="cpu")
        side.total, _ = counter.spend(lambda: runner.execute(plan))
        for cell in suite.perturbations[1:]:
            found = [plan.store.block(plan.pairs[0].keys[canonical(cell)], *span) for span in plan.pairs[0].spans]
            blocks = [block for block in found if block is not None]
            side.correct[str(cell)] = torch.cat([torch.from_numpy(block.correct) for block in blocks])
            side.backwards[str(cell)] = torch.cat([torch.from_numpy(block.backwards) for block in blocks])
            fb = int(side.backwards[str(cell)].sum())
            side.cells[str(cell)] = Spent(fb, sum(int(block.forwards.sum()) for block in blocks) - fb)
    return side


def peers(suite: Suite, bench: Bench, counter: Counter) -> Side:
    """The same cells one by one, in batches of the bench's size."""
    examples = bench.inputs.load(0, suite.examples)
    model, side = Model(bench), Side()
    with torch.no_grad():
        right = model(examples.x).argmax(1) == examples.y
    for cell in suite.perturbations[1:]:
        ball = ball_of(cell.threat, bench.box)
        attack = _peer(cell.attack, ball, model, len(suite.task.classes))
        use = torch.ones_like(right) if cell.attack == "pgd" else right
        rows = use.nonzero()[:, 0].split(bench.batch_size)
        spent, found = counter.spend(lambda: [attack(examples.x[r], examples.y[r]) for r in rows])  # noqa: B023
        alive = right.clone()
        for r, x_adv in zip(rows, found, strict=True):
            inside = project(x_adv.detach(), examples.x[r], ball)  # float32 leaves the ball by a last bit
            alive[r] &= judge(model, inside, examples.x[r], examples.y[r], ball).correct
        side.cells[str(cell)], side.correct[str(cell)] = spent, alive
        side.total = side.total + spent
    return side


def _peer(name: str, ball: Ball, model: Model, n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, y) -> x_adv by the peer's own code and defaults, with the protocol's steps."""
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
    """Both sides on one suite and model; `apart` is ours again, with one target at a time."""

    suite: Suite
    model: str
    own: Side
    peer: Side
    apart: Side

    @property
    def floor(self) -> int:
        """f+b passes of the protocol's floor."""
        total = 0
        for cell in self.suite.perturbations[1:]:
            jobs = min(9, len(self.suite.task.classes) - 1) if cell.attack == "apgd-t" else 1
            alive = self.own.correct[str(cell)]
            either = [side.backwards[str(cell)] for side in (self.own, self.apart)]
            total += int(alive.sum()) * STEPS[cell.attack] * jobs + int(torch.minimum(*either)[~alive].sum())
        return total

    def table(self) -> list[str]:
        """Markdown: a row a cell, and the totals."""
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
        """One row of the summary's table."""
        a, b, n, name = self.own.total, self.peer.total, self.suite.examples, f"{self.suite.name} | {self.model}"
        cells = [str(cell) for cell in self.suite.perturbations[1:]]
        robust = [100 * float(torch.stack([side.correct[c] for c in cells]).all(0).sum()) / n for side in self.sides]
        passes, cpu, weaker = b.fb / a.fb, b.seconds / a.seconds, self.weaker()
        return (
            f"| {name} | {n} | {robust[0]:.1f} | {robust[1]:.1f} | {weaker} | {a.fb} | {b.fb} | **{passes:.2f}** "
            f"| {a.fb / self.floor:.3f} | {a.seconds:.1f} | {b.seconds:.1f} | **{cpu:.2f}** | {cpu / passes:.2f} |"
        )

    @property
    def sides(self) -> tuple[Side, Side]:
        """Ours and the peers'."""
        return self.own, self.peer

    def weaker(self) -> str:
        """The most survivors that ours has more than the peer in any cell, and the fewest."""
        gaps = [int(self.own.correct[c].sum() - self.peer.correct[c].sum()) for c in self.own.cells]
        return f"{min(gaps):+d} to {max(gaps):+d}"


SUMMARY = (
    "| suite | model | examples | worst case, % | peers' | survivors by cell, ours less theirs | f+b | peers' | ratio "
    "| over floor | CPU s | peers' | ratio | CPU ratio over pass ratio |\n| --- | --- |" + " ---: |" * 12
)


def measure(suite: Suite, model: str, batch_size: int) -> Result:
    """Ours, the peers, and ours again with one target at a time; a short run before pays for what is lazy."""
    bench = prepare(suite, model, batch_size=batch_size)
    bench.inputs.load(0, suite.examples)  # rendered for both
    counter = Counter()
    with counter.on(type(bench.classifier.encoder)), settled("cpu"):
        ours(replace(suite, perturbations=suite.perturbations[:2], examples=8), model, batch_size, counter)
        own = ours(suite, model, batch_size, counter)
        peer = peers(suite, bench, counter)
        with mock.patch.object(pool, "ALONGSIDE", 0):
            apart = ours(suite, model, batch_size, counter)
    return Result(suite, model, own, peer, apart)


def machine() -> str:
    """What the numbers were measured on and with."""
    names = ("rlbind-bench", "torch", "pyautoattack", "torchattacks")
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return f"{cpu}, one thread; Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def page(results: Sequence[Result], command: str) -> str:
    """The markdown page."""
    told = (__doc__ or "").split("\n\n")[-1].strip()
    details = "\n\n".join(f"## {r.suite.name}, {r.model}\n\n" + "\n".join(r.table()) for r in results)
    rows = "\n".join(r.summary() for r in results)
    return (
        f"# The engine against its peers\n\n`{command}`\n\n{told}\n\n{machine()}.\n\n{SUMMARY}\n{rows}\n\n{details}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", default=["thermal", "image"], help="whose task; several are allowed")
    parser.add_argument("--model", nargs="+", default=["languagebind", "fare", "rlbind"])
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--eps-linf", nargs="*", default=["2/255", "4/255", "8/255"])
    parser.add_argument("--eps-l2", nargs="*", default=["0.5", "1"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, help="a markdown page, such as benchmarks/engine.md; default: stdout")
    options = parser.parse_args()
    results = []
    for name in options.suite:
        for model in options.model:
            eps: dict[Norm, Sequence[str]] = {"linf": options.eps_linf, "l2": options.eps_l2}
            suite = matrix(load_suite(name), eps, options.examples)
            results.append(measure(suite, model, options.batch_size))
            sys.stderr.write("\n".join([f"{name} {model}", *results[-1].table(), results[-1].summary()]) + "\n")
    text = page(results, " ".join(["python benchmarks/engine.py", *sys.argv[1:]]))
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
