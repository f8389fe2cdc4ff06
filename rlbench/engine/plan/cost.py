"""What an example costs in a cell: passes, the pace of an encoder, and the rest of a run's time.

Bounds hold when no example breaks; `pilot` puts estimates in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch

from rlbench.core import Corrupted, Perturbation
from rlbench.engine import cells
from rlbench.engine.attack.eot import DRAWS
from rlbench.engine.block.evaluate import Bench
from rlbench.engine.cells.groups import Group

STARTING = 4.0  # seconds that a worker process takes to start: the import of torch, and the encoder
CORRUPTING = 0.005  # seconds that a corruption takes of an example of 32 pixels, about
SAVING = 0.015  # seconds that a block of a cell takes to be judged, written and read again


@dataclass(frozen=True)
class Cost:
    """Mean forward and backward passes of an example in a cell; `correct`: the share that stays correct, if known."""

    forwards: float
    backwards: float
    correct: float | None = None


@dataclass(frozen=True)
class Pace:
    """Seconds of an example's forward and backward pass in a full batch."""

    forward: float
    backward: float

    def seconds(self, forwards: float, backwards: float) -> float:
        """Of so many passes."""
        return forwards * self.forward + backwards * self.backward

    def scale(self, factor: float) -> Pace:
        """As many times slower."""
        return Pace(self.forward * factor, self.backward * factor)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a suite costs with a model, per example.

    Attributes:
        pace: of the encoder, with all that a pass brings with it.
        cells: of every member of every group.
        corrupting: seconds of a corruption; CORRUPTING where not measured.
        warming: seconds that the corruptions' first calls take, once a process.
        rendering: seconds until an example is there.
        piloted: whether these are estimates rather than bounds.
    """

    pace: Pace
    cells: Mapping[Perturbation, Cost]
    corrupting: Mapping[Corrupted, float] = field(default_factory=dict)
    warming: float = 0.0
    rendering: float = 0.0
    piloted: bool = False

    def seconds(self, group: Group, n: int) -> float:
        """Of a group on a block of n examples."""
        spent = [self.cells[member] for member in group.members]
        each = sum(self.pace.seconds(cost.forwards, cost.backwards) for cost in spent)
        if group.corrupted is not None:
            each += self.corrupting.get(group.corrupted, CORRUPTING)
        return n * each + SAVING * len(spent)


def bounds(bench: Bench) -> Rates:
    """The most that the cells of a bench can cost, at the pace of a short probe."""
    members = [member for group in cells.groups(bench.suite.perturbations) for member in group.members]
    draws = DRAWS if "randomised" in bench.classifier.encoder.traits else 1
    most = {member: cells.bound_passes(member, bench.n_classes) for member in members}
    found = {member: Cost(draws * forwards, draws * backwards) for member, (forwards, backwards) in most.items()}
    return Rates(pace=probe(bench), cells=found)


def probe(bench: Bench) -> Pace:
    """The encoder alone: timed on growing batches, up to a tenth of a second."""
    middle = (bench.box.low + bench.box.high) / 2
    pace = Pace(0.0, 0.0)
    for size in (1, 1, 4, 16, 64):  # the first call pays for what is lazy
        if size > max(1, bench.batch_size):
            break
        x = torch.full((size, *bench.box.shape), middle, device=bench.device, requires_grad=True)
        begun = perf_counter()
        with torch.no_grad():
            float(bench.classifier(x).sum())  # a GPU is done only when it has said so
        between = perf_counter()
        float(torch.autograd.grad(bench.classifier(x).sum(), x)[0].sum())
        forward, both = (between - begun) / size, (perf_counter() - between) / size
        pace = Pace(forward, max(0.0, both - forward))
        if perf_counter() - begun > 0.1 and size > 1:
            break
    return pace
