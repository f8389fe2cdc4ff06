"""What an example costs in a cell, in passes and seconds; and how many examples a budget of time allows.

Bounds hold when no example breaks, and so do usual costs, which leave out what few examples take; `pilot` replaces
these by estimates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch

from rlbench.core import Corrupted, Missing, Perturbation
from rlbench.core.errors import FieldError
from rlbench.engine import cells
from rlbench.engine.block.bench import Bench
from rlbench.engine.cells.groups import Group

STARTING = 4.0  # seconds that a worker process takes to import torch and load the encoder
CORRUPTING = 0.005  # seconds that a corruption takes for an example of 32 pixels, roughly
ANSWERING = 0.01  # seconds that a server takes for an input, roughly
SAVING = 0.015  # seconds to judge, write and read again one block of a cell
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Cost:
    """Mean forward and backward passes of an example in a cell, and the share that remains correct, if known."""

    forwards: float
    backwards: float
    correct: float | None = None


@dataclass(frozen=True)
class Pace:
    """Seconds of an example's forward and backward pass in a full batch."""

    forward: float
    backward: float

    def seconds(self, forwards: float, backwards: float) -> float:
        """Seconds of this many passes."""
        return forwards * self.forward + backwards * self.backward

    def scale(self, factor: float) -> Pace:
        """A pace that is `factor` times slower."""
        return Pace(self.forward * factor, self.backward * factor)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a suite costs with a model, per example.

    Attributes:
        pace: the seconds of the encoder's passes, with their overhead.
        cells: the cost of every member of every group.
        corrupting: seconds of a corruption; CORRUPTING where not measured.
        warming: extra seconds of the corruptions' first calls, once per process.
        rendering: seconds to load an example.
        piloted: whether these are estimates from a pilot.
    """

    pace: Pace
    cells: Mapping[Perturbation, Cost]
    corrupting: Mapping[Corrupted | Missing, float] = field(default_factory=dict)
    warming: float = 0.0
    rendering: float = 0.0
    piloted: bool = False

    def seconds(self, group: Group, n: int) -> float:
        """Seconds of a group on a block of n examples."""
        spent = [self.cells[member] for member in group.members]
        each = sum(self.pace.seconds(cost.forwards, cost.backwards) for cost in spent)
        if isinstance(group.corrupted, Corrupted | Missing):
            each += self.corrupting.get(group.corrupted, CORRUPTING)
        return n * each + SAVING * len(spent)


def bounds(bench: Bench) -> tuple[Rates, Rates]:
    """The largest and the usual cost of a bench's cells where no example breaks, at the pace of a short probe."""
    members = [member for group in cells.groups(bench.suite.perturbations) for member in group.members]
    draws, pace = bench.draws if bench.randomised else 1, probe(bench)

    def rates(*, usual: bool) -> Rates:
        passes = {member: cells.bound_passes(member, bench.n_classes, usual=usual) for member in members}
        return Rates(pace=pace, cells={m: Cost(draws * forth, draws * back) for m, (forth, back) in passes.items()})

    return rates(usual=False), rates(usual=True)


def probe(bench: Bench) -> Pace:
    """Times the encoder alone on growing batches, for up to a tenth of a second."""
    pace = Pace(0.0, 0.0)
    if bench.is_metered:
        return Pace(ANSWERING, 0.0)
    for size in (1, 1, 4, 16, 64):  # the first call includes lazy initialisation
        if size > max(1, bench.batch_size):
            break
        begun = perf_counter()
        try:
            pace = _time_pass(bench, size)
        except torch.OutOfMemoryError:  # in a run, the batch is halved
            break
        if perf_counter() - begun > 0.1 and size > 1:
            break
    return pace


def _time_pass(bench: Bench, size: int) -> Pace:
    """Times a batch of `size` grey inputs."""
    middle = (bench.box.low + bench.box.high) / 2
    x = torch.full((size, *bench.box.shape), middle, device=bench.device, requires_grad=True)
    begun = perf_counter()
    with torch.no_grad():
        float(bench.classifier(x).sum())  # float() waits for a GPU to finish
    between = perf_counter()
    if bench.knowledge == "white-box" and (logits := bench.classifier(x)).requires_grad:
        float(torch.autograd.grad(logits.sum(), x)[0].sum())
    forward, both = (between - begun) / size, (perf_counter() - between) / size
    return Pace(forward, max(0.0, both - forward))


def parse_budget(text: str) -> float:
    """Seconds of a time such as `30s`, `10m` or `1.5h`. Raises: FieldError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or float(found[1]) == 0:
        raise FieldError(f"budget is {text!r}; it must be a time above 0 such as 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def largest_fitting(fits: Callable[[int], bool], most: int, block: int) -> int:
    """The largest number in 1..most that fits, or 0 if none does.

    Whole blocks may be recorded already, so more examples can take less time; within a block, fewer examples always
    fit, and so do fewer whole blocks, but for workers who pay only for many (then a smaller number may be returned).
    The number has two digits unless it ends a block or is `most`.
    """
    ends = [*range(block, most, block), most]
    low, high = len(ends), len(ends) + 1  # whole blocks that fit, and that do not
    while low and not fits(ends[low - 1]):
        low, high = low // 2, low
    low = _within(lambda blocks: fits(ends[blocks - 1]), low, high)
    whole = ends[low - 1] if low else 0
    if low == len(ends) or not fits(whole + 1):
        return whole
    return max(whole + 1, _round_down(_within(fits, whole + 1, ends[low])))


def _within(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number that fits, where `low` fits and `high` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _round_down(n: int) -> int:
    """Rounds down to two digits."""
    unit: int = 10 ** max(0, len(str(n)) - 2)
    return n // unit * unit
