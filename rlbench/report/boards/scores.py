"""Scores of a board, its rows and tables: nouns, what is bound and what is exact, and the columns' order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from rlbench.core.badges import RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray
from rlbench.core.badges import DOUBTED
from rlbench.store.columns import Column

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Score:
    """A share of correct examples in [0, 1] with its interval, or why there is none.

    Attributes:
        hits: (n,) int, under how many of `of` cells each example is correct; None where the record doesn't say.
        deff: the variance over that of as many independent examples; above 1 where examples share sources.
        soundness: the badge of the soundness checks, if there were any.
        bound: the share is a bound from above, which stands for no accuracy and is never ranked.
        keys: of the records.
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

    @property
    def exact(self) -> bool:
        """It has counts, and they are no bound: it can be ranked."""
        return self.error is None and not self.bound

    def __str__(self) -> str:
        """In %: `88.2 [85.1, 90.7]`, a bound as `≤ 88.2 [85.1, 90.7]`, or `failed`."""
        if self.error is not None:
            return "failed"
        return f"{'≤ ' * self.bound}{100 * self.share:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Row:
    """A model at its n and weights, with its scores by column.

    Attributes:
        model: its name; where the table has several of that name, with what tells them apart.
        backbone, anchors: as its records say; anchors differ with the text tower or the prompts.
        prompts: hash of what the text tower was given; "" where the records don't say.
        warning: why the row can't be compared with the others by its encoder alone.
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
        """The gravest badge of its cells."""
        return gravest(score.soundness for score in self.scores.values())

    @property
    def marked(self) -> str:
        """Its name where no column of badges stands beside it (see `marked`)."""
        return marked(self.model, self.soundness)

    def whole(self, columns: Iterable[Column]) -> bool:
        """It has an exact score in each of the columns."""
        return all(column in self.scores and self.scores[column].exact for column in columns)

    def mean(self, columns: Sequence[Column]) -> float:
        """Over columns that it has whole."""
        return fmean(self.scores[column].share for column in columns)


@dataclass(frozen=True)
class Table:
    """Cells that can be compared.

    Attributes:
        facts: the values of COMPARABLE that they share.
        made_with: the versions and devices that they came from.
        apart: the facts, if any, that keep this table from being one with another of the same suite.
        notes: what the numbers do not say: classes that do not occur, sources too few, one model under two names.
    """

    facts: Mapping[str, object]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    made_with: str
    apart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        f = self.facts
        backbone = f", backbone {self.backbone}" if self.backbone else ""
        return f"{f['suite']} v{f['suite_version']}: {f['modality']}{backbone} on {f['task']}{differing(f, self.apart)}"

    @property
    def backbone(self) -> str:
        """That of all rows, or "" where they differ."""
        found = {row.backbone for row in self.rows}
        return found.pop() if len(found) == 1 else ""

    @property
    def failures(self) -> list[str]:
        """One line for each failed cell."""
        return [f"{r.model}, {c}: {s.error}" for r in self.rows for c, s in r.scores.items() if s.error is not None]

    @cached_property
    def shared(self) -> tuple[Column, ...]:
        """The columns that every row on the scale has."""
        ranked = [row for row in self.rows if row.whole(self.scale)]
        return tuple(column for column in self.columns if all(row.whole([column]) for row in ranked))

    @cached_property
    def scale(self) -> tuple[Column, ...]:
        """The columns whose mean puts rows in order: of the worst cases, else of all, those that most rows have whole.

        Rows that lack one of them, or failed there, are not on this scale. It is empty where attacked cells are bounds.
        """
        exact = [c for c in self.columns if any(r.scores[c].exact for r in self.rows if c in r.scores)]
        worst = [column for column in exact if column.is_worst]
        if not worst and any(column.is_bound for column in self.columns):
            return ()
        return most_shared([{c for c in worst or exact if r.whole([c])} for r in self.rows], worst or exact)


def most_shared(having: Sequence[set[Name]], names: Sequence[Name]) -> tuple[Name, ...]:
    """Those of the names that most have together: their number times that of the sets that have them all is greatest.

    Of the sets themselves and what two of them share; a tie goes to more names.
    """
    different = {frozenset(one) for one in having}
    candidates = different | {a & b for a, b in combinations(different, 2)} if len(different) < 100 else different
    counts = Counter(map(frozenset, having))

    def weight(some: frozenset[Name]) -> tuple[int, int, list[bool]]:
        shared = sum(number for one, number in counts.items() if some <= one)
        return shared * len(some), len(some), [name in some for name in names]

    best = max(candidates, key=weight, default=frozenset[Name]())
    return tuple(name for name in names if name in best)


def differing(facts: Mapping[str, object], names: Iterable[str]) -> str:
    """What keeps a part from being one with others of its suite, for its heading: `, data 12ab, n = 16`."""
    return "".join(f", n = {facts[name]}" if name == "n" else f", {name} {facts[name]}" for name in names)


def gravest(badges: Iterable[str]) -> str:
    """Of soundness badges; "" without any, and an unknown one is the gravest."""
    return max(filter(None, badges), key=lambda badge: RANK.index(badge) if badge in RANK else len(RANK), default="")


def marked(model: str, badge: str) -> str:
    """A model's name where a table has no column of badges: `own:mini [unreliable]` if its numbers are in doubt."""
    return f"{model} [{badge}]" if badge in DOUBTED else model
