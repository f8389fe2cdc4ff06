"""The parts of a plan: pairs of a suite and a model, work units, cells, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlbench.core import Perturbation, Suite
from rlbench.core.stats.metrics import wilson
from rlbench.encoders.identity import Identity
from rlbench.engine.block.gallery import Gallery
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan.cost import STARTING, Rates
from rlbench.store.blocks import BLOCK
from rlbench.store.store import Store


@dataclass(frozen=True)
class PlannedCell:
    """A cell, how much of it is recorded, and the cost of the rest.

    Attributes:
        suite, model, perturbation: names.
        n: examples.
        blocks, done: number of blocks, and of those that are recorded.
        forwards, backwards: upper bound of the passes.
        expected_forwards, expected_backwards: estimate of the passes (see `pilot`).
        half_width: of the Wilson interval, in [0, 1], at the pilot's accuracy, or at 50%.
        skipped: why the cell cannot run; then it has no blocks.
    """

    suite: str
    model: str
    perturbation: Perturbation
    n: int
    blocks: int = 0
    done: int = 0
    forwards: int = 0
    backwards: int = 0
    expected_forwards: int = 0
    expected_backwards: int = 0
    half_width: float = 1.0
    skipped: str | None = None


@dataclass(frozen=True)
class Pair:
    """A suite and a model.

    Attributes:
        suite, model, backbone: the suite, and names.
        n, n_classes: numbers of examples and of classes.
        subject: what the cells' numbers depend on besides the protocol (see `Bench.subject`).
        keys: the cell key of every perturbation, including the hidden rungs of a ladder.
        bounds: upper bounds of the cost.
        rates: estimates of the cost; the bounds without a pilot.
        gallery: the captions, for retrieval only.
        identity: the encoder's.
        lacking: the suite's other perturbations, and why they can't run.
        metered: whether the encoder's queries cost something, so that nothing is asked before the run.
    """

    suite: Suite
    model: str
    backbone: str
    n: int
    n_classes: int
    subject: dict[str, object]
    keys: dict[Perturbation, str]
    bounds: Rates
    rates: Rates
    gallery: Gallery | None = None
    identity: Identity = field(default_factory=Identity)
    lacking: tuple[tuple[Perturbation, str], ...] = ()
    metered: bool = False

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The blocks, as (start, stop)."""
        return [(start, min(start + BLOCK, self.n)) for start in range(0, self.n, BLOCK)]


@dataclass(frozen=True)
class Unit:
    """A block of a group of a pair.

    Attributes:
        pair: its index in the plan.
        group: what is computed.
        start, stop: of the examples.
        passes: upper bound of the forward passes.
        seconds, expected: upper bound and estimate of the time.
    """

    pair: int
    group: Group
    start: int
    stop: int
    passes: int
    seconds: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would run; `notes` are for the user, such as damaged blocks."""

    cells: tuple[PlannedCell, ...]
    notes: tuple[str, ...]
    workers: int
    device: str
    batch_size: int
    fresh: bool
    store: Store
    pairs: tuple[Pair, ...]
    units: tuple[Unit, ...]

    @property
    def passes(self) -> int:
        """Upper bound of forward passes; most of them have a backward pass."""
        return sum(unit.passes for unit in self.units)

    @property
    def seconds(self) -> float:
        """Upper bound of the time."""
        return self._time([unit.seconds for unit in self.units])

    @property
    def expected(self) -> float:
        """Estimate of the seconds; without a pilot the upper bound."""
        return self._time([unit.expected for unit in self.units])

    def _time(self, units: Sequence[float]) -> float:
        """Seconds of these units. Workers share them, but cannot split the longest, and have to start first."""
        used = [self.pairs[k] for k in dict.fromkeys(unit.pair for unit in self.units)]
        rendering = {pair.suite.name: pair.rates.rendering * pair.n for pair in used}
        warming = max((pair.rates.warming for pair in used), default=0.0)
        alone = sum(rendering.values()) + warming
        if self.workers == 1:
            return sum(units) + alone
        return max(sum(units) / self.workers, max(units)) + alone + STARTING

    @property
    def piloted(self) -> bool:
        """Whether `expected` comes from a pilot."""
        return any(pair.rates.piloted for pair in self.pairs)

    @property
    def half_width(self) -> float:
        """Of the Wilson interval at 50%, in [0, 1], of the smallest cell."""
        return half_width(0.5, min((pair.n for pair in self.pairs), default=0))


def half_width(share: float, n: int) -> float:
    """Of the Wilson 95% interval of a share of n, in [0, 1]."""
    low, high = wilson(share * n, n)
    return (high - low) / 2
