"""The types of a board: scores, rows and tables, and which columns order the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from rlbench.core.badges import DOUBTED, worst_badge
from rlbench.core.stats.metrics import wilson
from rlbench.store.columns import Column

if TYPE_CHECKING:
    from numpy.typing import NDArray

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Score:
    """The share of correct examples with its 95% interval, or the reason why there is none.

    Attributes:
        share: accuracy, in [0, 1].
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
        error: why the cell failed; None if it did not.
        hits: (n,) int, the number of cells, 0 to `of`, in which each example is correct; None without flags.
        of: the number of cells that the score is a mean of.
        deff: design effect: the variance divided by that of n independent examples; 1 unless examples share sources.
        soundness: badge of the soundness checks; "" without checks.
        bound: whether the share is an upper bound, which is never ranked.
        keys: of the records.
        certified: of several sensors without an attack, the share of examples with a takeover certificate and its
            interval; None without certificates.
    """

    share: float
    low: float
    high: float
    error: str | None = None
    hits: NDArray[Any] | None = field(default=None, compare=False, repr=False)
    of: int = 1
    deff: float = 1.0
    soundness: str = ""
    bound: bool = False
    keys: tuple[str, ...] = field(default=(), compare=False)
    certified: Score | None = None

    @property
    def exact(self) -> bool:
        """Whether it can be ranked: the cell did not fail, and the share is not a bound."""
        return self.error is None and not self.bound

    def __str__(self) -> str:
        """`88.2 [85.1, 90.7]` in %; a bound as `≤ 88.2 [85.1, 90.7]`; or `failed`."""
        if self.error is not None:
            return "failed"
        return f"{'≤ ' * self.bound}{100 * self.share:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def interval(count: int, n: int, facts: Mapping[str, Any], name: str) -> tuple[float, float]:
    """The 95% interval of a share, in [0, 1]: Wilson's, or the bootstrap over sources if that is wider.

    If all examples are of one source, it is Wilson's interval of a single example.

    Args:
        count: of the n examples.
        n: at least 0.
        facts: provenance with `sources`, `NAME_low` and `NAME_high`, if examples share sources.
        name: of the interval in `facts`.
    """
    low, high = wilson(count, n)
    if facts.get("sources") == 1:
        return wilson(count / max(n, 1), 1)
    clusters = facts.get(f"{name}_low"), facts.get(f"{name}_high")
    if clusters[0] is None or clusters[1] is None:
        return low, high
    return min(low, float(clusters[0])), max(high, float(clusters[1]))


@dataclass(frozen=True)
class ModelRow:
    """A row of a board: one model with one set of weights, and its scores.

    Attributes:
        model: its name; if several rows have the same one, with the hashes that distinguish them.
        n: the number of examples.
        scores: by column.
        backbone: as in its records.
        anchors: hash of the anchors, which depend on the text tower and the prompts.
        prompts: hash of the text tower's input; "" if the records do not have it.
        warning: why the row differs from the others by more than its encoder; "" if it does not.
    """

    model: str
    n: int
    scores: Mapping[Column, Score]
    backbone: str = ""
    anchors: str = ""
    prompts: str = ""
    warning: str = ""

    @cached_property
    def soundness(self) -> str:
        """The worst badge of its cells."""
        return worst_badge(score.soundness for score in self.scores.values())

    @property
    def marked_name(self) -> str:
        """The model's name with its badge, for tables without a column of badges (see `mark_name`)."""
        return mark_name(self.model, self.soundness)

    def has_exact(self, columns: Iterable[Column]) -> bool:
        """Whether it has an exact score in each of the columns."""
        return all(column in self.scores and self.scores[column].exact for column in columns)

    def mean(self, columns: Sequence[Column]) -> float:
        """The mean share over columns, each of which has an exact score."""
        return fmean(self.scores[column].share for column in columns)


@dataclass(frozen=True)
class Table:
    """Cells that can be compared.

    Attributes:
        facts: the values of `tables.COMPARABLE` that all cells share.
        columns: in order.
        rows: in order.
        made_with: the protocol's hash, the versions and the devices.
        apart: names of the facts in which it differs from other tables of the same suite.
        notes: limits of the numbers: classes that do not occur, too few sources, one model under two names.
    """

    facts: Mapping[str, object]
    columns: tuple[Column, ...]
    rows: tuple[ModelRow, ...]
    made_with: str
    apart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_sensors(self) -> bool:
        """Whether it is of a task with several sensors."""
        return "+" in str(self.facts["modality"])

    @property
    def title(self) -> str:
        """Its heading: suite, modality, backbone, task, and what distinguishes it from other tables of the suite."""
        f = self.facts
        backbone = f", backbone {self.backbone}" if self.backbone else ""
        apart = describe_distinction(f, self.apart)
        return f"{f['suite']} v{f['suite_version']}: {f['modality']}{backbone} on {f['task']}{apart}"

    @property
    def backbone(self) -> str:
        """The backbone of all rows; "" if they differ."""
        found = {row.backbone for row in self.rows}
        return found.pop() if len(found) == 1 else ""

    @property
    def failures(self) -> list[str]:
        """One line per failed cell: model, column and error."""
        return [f"{r.model}, {c}: {s.error}" for r in self.rows for c, s in r.scores.items() if s.error is not None]

    @cached_property
    def shared(self) -> tuple[Column, ...]:
        """The columns in which every row on the scale has an exact score."""
        ranked = [row for row in self.rows if row.has_exact(self.scale)]
        return tuple(column for column in self.columns if all(row.has_exact([column]) for row in ranked))

    @cached_property
    def scale(self) -> tuple[Column, ...]:
        """The columns whose mean orders the rows: the worst cases, or all columns of a table without any.

        Columns that few rows have are left out (see `choose_common`). A row without an exact score in each of them is
        not on the scale. The scale is empty if all attacks of the table only give bounds.
        """
        exact = [c for c in self.columns if any(r.scores[c].exact for r in self.rows if c in r.scores)]
        worst = [column for column in exact if column.is_worst]
        if not worst and any(column.is_bound for column in self.columns):
            return ()
        return choose_common([{c for c in worst or exact if r.has_exact([c])} for r in self.rows], worst or exact)


def distinguish_task(table: Table, tables: Iterable[Table]) -> str:
    """The fusion of a table with several sensors, or its task; "" if its suite has no other one of that modality."""

    def name(one: Table) -> str:
        return str(one.facts["task"]).rpartition(f":{one.facts['modality']}:")[2]

    alike = [t for t in tables if all(t.facts[k] == table.facts[k] for k in ("suite", "suite_version", "modality"))]
    return name(table) if len({name(one) for one in alike}) > 1 else ""


def choose_common(having: Sequence[set[Name]], names: Sequence[Name]) -> tuple[Name, ...]:
    """The names to compare sets by: their number, times the number of sets that have all of them, is greatest.

    Candidates are the sets and, below 100 different ones, the intersections of two. A tie goes to more names.

    Args:
        having: the names that each row has.
        names: all names, in the order of the result.
    """
    different = {frozenset(one) for one in having}
    candidates = different | {a & b for a, b in combinations(different, 2)} if len(different) < 100 else different
    counts = Counter(map(frozenset, having))

    def weight(some: frozenset[Name]) -> tuple[int, int, list[bool]]:
        shared = sum(number for one, number in counts.items() if some <= one)
        return shared * len(some), len(some), [name in some for name in names]

    best = max(candidates, key=weight, default=frozenset[Name]())
    return tuple(name for name in names if name in best)


def describe_distinction(facts: Mapping[str, object], names: Iterable[str]) -> str:
    """What distinguishes a table from others of its suite, for its heading: `, data 12ab, n = 16`.

    Args:
        facts: of the table.
        names: of the facts that differ.
    """
    return "".join(f", n = {facts[name]}" if name == "n" else f", {name} {facts[name]}" for name in names)


def mark_name(model: str, badge: str) -> str:
    """A model's name, followed by its badge if its numbers are in doubt: `own:mini [unreliable]`."""
    return f"{model} [{badge}]" if badge in DOUBTED else model
