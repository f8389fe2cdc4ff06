"""The work of a run: its pairs of a suite and a model, its units, its cells, and what all of it costs."""

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
    """A cell, how much of it is recorded, and the passes that the rest takes: at most, and about (see `pilot`).

    `half_width`: of the Wilson interval, in [0, 1], at the accuracy that the pilot saw, or at 50%. `skipped` says why
    the cell can't run; then it has no blocks.
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
    """A suite and a model, with the cell key of every perturbation, hidden rungs of a ladder included.

    `bounds` is the most that its cells cost, `rates` what they cost about: the bounds themselves without a pilot.
    `gallery`: the captions, of retrieval. `identity`: the encoder's.
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

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The blocks, as (start, stop)."""
        return [(start, min(start + BLOCK, self.n)) for start in range(0, self.n, BLOCK)]


@dataclass(frozen=True)
class Unit:
    """A block of a group of a pair (its index in the plan): forward passes and seconds at most, and seconds about."""

    pair: int
    group: Group
    start: int
    stop: int
    passes: int
    seconds: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would run. `notes`: what the user should know of, such as damaged blocks."""

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
        """Seconds that the run takes, about; without a pilot the upper bound."""
        return self._time([unit.expected for unit in self.units])

    def _time(self, units: Sequence[float]) -> float:
        """Seconds of these units: side by side, the longest is no shorter for it, and every worker starts first."""
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
