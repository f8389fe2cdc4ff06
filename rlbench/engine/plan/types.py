"""The parts of a plan: pairs of a suite and a model, work units, cells, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlbench.core import Perturbation, Suite
from rlbench.core.errors import FieldError, quote
from rlbench.core.executor import Executor
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
        suite: name of the suite.
        task: name of the task.
        model: name of the model.
        perturbation: the perturbation, as records have it.
        n: number of examples.
        blocks: number of blocks.
        done: number of blocks that are recorded.
        forwards: upper bound of the forward passes that are left.
        backwards: upper bound of the backward passes that are left.
        expected_forwards: estimate of the forward passes that are left (see `pilot`).
        expected_backwards: estimate of the backward passes that are left.
        half_width: half the width of the Wilson interval, in [0, 1], at the pilot's accuracy, or at 50%.
        skipped: why the cell cannot run; then it has no blocks.
    """

    suite: str
    task: str
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
        suite: the suite.
        model: name of the model.
        backbone: name of its backbone.
        n: number of examples.
        n_classes: number of the task's classes.
        subject: what the cells' numbers depend on besides the protocol (see `Bench.subject`).
        keys: the cell key of every perturbation, including the hidden rungs of a ladder.
        bounds: upper bounds of the cost.
        rates: estimates of the cost; without a pilot the usual cost where no example breaks.
        gallery: the captions, for retrieval only.
        identity: the encoder's.
        lacking: the suite's other cells, which can't run with what the encoder gives.
        metered: whether the encoder's queries cost something, so that nothing is asked before the run.
        batch_size: the most examples of a forward pass; workers halve it where memory runs out.
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
    lacking: tuple[PlannedCell, ...] = ()
    metered: bool = False
    batch_size: int = 64

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The blocks, as (start, stop)."""
        return [(start, min(start + BLOCK, self.n)) for start in range(0, self.n, BLOCK)]


@dataclass(frozen=True)
class Shard:
    """Every n-th span of a plan: `index` of `count`, from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def __contains__(self, start: object) -> bool:
        """Whether the span that starts at this example is in the shard."""
        return isinstance(start, int) and (start // BLOCK) % self.count == self.index - 1


def parse_shard(text: str) -> Shard:
    """Parses "2/3". Raises: FieldError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= 10_000):
        raise FieldError(f"shard is {quote(text)}; it must be I/N with 1 <= I <= N, such as 2/3")
    return Shard(int(index), int(count))


@dataclass(frozen=True)
class Unit:
    """A block of a group of a pair.

    Attributes:
        pair: its index in the plan.
        group: what is computed.
        start: index of the first example.
        stop: index after the last example.
        passes: upper bound of the forward passes.
        usual: estimate of the forward passes.
        seconds: upper bound of the time, in seconds.
        expected: estimate of the time, in seconds.
    """

    pair: int
    group: Group
    start: int
    stop: int
    passes: int
    usual: int
    seconds: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do.

    Attributes:
        cells: every cell, in the order of the suites and models.
        notes: messages for the user, such as about damaged blocks.
        executor: where the workers are.
        devices: the torch device of every worker.
        fresh: whether stored results of these cells are discarded.
        store: the store of the results.
        pairs: the suites and models.
        units: the blocks that are missing.
        shard: the part of the spans that this run computes; None for all.
        elsewhere: the missing blocks that other shards compute.
    """

    cells: tuple[PlannedCell, ...]
    notes: tuple[str, ...]
    executor: Executor
    devices: tuple[str, ...]
    fresh: bool
    store: Store
    pairs: tuple[Pair, ...]
    units: tuple[Unit, ...]
    shard: Shard | None = None
    elsewhere: tuple[Unit, ...] = ()

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self.devices)

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
        """Estimate of the seconds; without a pilot for examples that do not break."""
        return self._time([unit.expected for unit in self.units])

    def _time(self, units: Sequence[float]) -> float:
        """Seconds of these units. Workers share them, but cannot split the longest, and have to start first."""
        used = [self.pairs[k] for k in dict.fromkeys(unit.pair for unit in self.units)]
        rendering = {(pair.suite.name, pair.suite.task_name): pair.rates.rendering * pair.n for pair in used}
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
