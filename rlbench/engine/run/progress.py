"""The progress of a run: its passes, and how far every cell is while its attacks still run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlbench.core import Clean, Corrupted, Edited, Missing, Perturbation, Record
from rlbench.core.stats.metrics import wilson
from rlbench.engine.attack.schedule import Standing
from rlbench.engine.plan.types import Pair
from rlbench.store.blocks import Block

Span = tuple[int, int]
Place = tuple[int, Perturbation]  # a cell: the index of its pair in the plan, and its canonical perturbation
News = Mapping[tuple[int, Perturbation, Span], Standing]  # what a job reports beside its passes


@dataclass(frozen=True)
class CellProgress:
    """How far a cell is.

    Attributes:
        suite: name of the suite.
        task: name of the task.
        model: name of the model.
        perturbation: the perturbation, as the suite has it.
        n: number of examples.
        decided: number of examples whose result is known.
        wrong: number of the decided examples that are misclassified.
        searching: whether what is not decided yet is under attack, so that wrong examples are decided first.
        finished: whether the cell is recorded.
        error: why the cell failed; None if it did not.
    """

    suite: str
    task: str
    model: str
    perturbation: Perturbation
    n: int
    decided: int
    wrong: int
    searching: bool
    finished: bool
    error: str | None = None

    @property
    def is_bound(self) -> bool:
        """Whether `share` is an upper bound of the final accuracy, which falls to it."""
        return self.searching and not self.finished and self.decided < self.n

    @property
    def share(self) -> float | None:
        """Accuracy in [0, 1], of the decided examples or as an upper bound; None while nothing is known."""
        if self.decided == 0 or self.error is not None:
            return None
        return 1 - self.wrong / self.n if self.is_bound else 1 - self.wrong / self.decided

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the decided examples; of a bound, one that contains the final one, in [0, 1]."""
        if not self.is_bound:
            return wilson(self.decided - self.wrong, self.decided)
        return wilson(self.decided - self.wrong, self.n)[0], wilson(self.n - self.wrong, self.n)[1]


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        what: the cells that are being computed.
        done: forward passes of this run.
        total: upper bound of them, which falls as examples break early.
        rate: passes per second; 0 when not known yet.
        seconds: since the first pass.
        left: upper bound of the remaining seconds at this rate; None when not known yet.
        cells: every cell, in the plan's order.
        usual: seconds that usually remain at most; 0 when there were more passes than usual; None when not known.
    """

    what: str
    done: int
    total: int
    rate: float
    seconds: float
    left: float | None
    cells: Sequence[CellProgress] = ()
    usual: float | None = None


@dataclass
class Standings:
    """The standings of all cells by block. A cell's decided and wrong examples never fall."""

    found: dict[Place, dict[Span, Standing]] = field(default_factory=dict)

    def update(self, news: News) -> None:
        """Takes what jobs report."""
        for (pair, member, span), new in news.items():
            blocks = self.found.setdefault((pair, member), {})
            old = blocks.get(span, Standing(new.n, 0, 0))
            blocks[span] = Standing(new.n, max(old.decided, new.decided), max(old.wrong, new.wrong))

    def start(self, pair: int, members: Iterable[Perturbation], clean: Block, start: int) -> None:
        """Takes the errors of a clean block that begins at example `start`: no attack can correct them."""
        n, wrong = len(clean.correct), int((~clean.correct).sum())
        self.update({(pair, member, (start, start + n)): Standing(n, wrong, wrong) for member in members})

    def finish(self, place: Place, block: Block, span: Span) -> None:
        """Takes a finished block of a cell."""
        self.found.setdefault(place, {})[span] = Standing(
            len(block.correct), len(block.correct), int((~block.correct).sum())
        )

    def describe(self, pair: Pair, p: Perturbation, places: Sequence[Place], record: Record | None) -> CellProgress:
        """How far a cell of these places is, which has a record once it is finished."""
        searching, known = not isinstance(p, Clean | Corrupted | Edited | Missing), self.whole(places)
        about = pair.suite.name, pair.suite.task_name, pair.model, p, pair.n
        if record is None:
            return CellProgress(*about, known.decided, known.wrong, searching, finished=False)
        return CellProgress(*about, pair.n, pair.n - (record.n_correct or 0), searching, True, record.error)

    def whole(self, places: Sequence[Place]) -> Standing:
        """The standing of a cell, or of a worst case over several: an example that is wrong in one is decided there."""
        each = [self.found.get(place, {}).values() for place in places]
        sums = [Standing(0, sum(s.decided for s in one), sum(s.wrong for s in one)) for one in each]
        wrong = max((s.wrong for s in sums), default=0)
        return Standing(0, sums[0].decided if len(sums) == 1 else wrong, wrong)
