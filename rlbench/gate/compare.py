"""Two models, or two stores, on the same examples: paired differences, tested exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlbench.core import Perturbation, Record
from rlbench.core.badges import DOUBTED
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import holm
from rlbench.core.stats.paired import Pairs
from rlbench.gate.regression import ALIKE, apart, name_part, place
from rlbench.store.columns import reading_order
from rlbench.store.flags import flags_of
from rlbench.store.perturbations import is_bound


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A cell of A and of B.

    Attributes:
        a, b: examples that are correct. pairs: from A to B, so that a drop means that B is worse.
        p: two-sided exact McNemar, Holm-adjusted over the cells of the comparison.
        sources: of the examples, where they share some: the tests take examples for independent, and are too sure.
        apart: why they can't be compared; then there are no pairs.
    """

    suite: str
    perturbation: Perturbation
    models: tuple[str, str]
    a: int = 0
    b: int = 0
    pairs: Pairs | None = None
    p: float = 1.0
    sources: int | None = None
    apart: str = ""

    @property
    def bound(self) -> bool:
        """The cell is a bound from above, so that a difference says nothing of the accuracies."""
        return is_bound(self.perturbation)

    def verdict(self, alpha: float = 0.05) -> Literal["B above", "B below", "level", "bounds", "not comparable"]:
        """ "level" where the adjusted p is not below alpha: neither is shown to be better."""
        if self.pairs is None:
            return "not comparable"
        if self.bound:
            return "bounds"
        return "level" if self.p >= alpha else "B below" if self.pairs.drop > 0 else "B above"


def compare(a: Iterable[Record], b: Iterable[Record]) -> list[Contrast]:
    """Every cell that both have, in reading order.

    Models of one name are paired; where each side has a single model, those two.

    Raises: StoreError where there is no such cell.
    """
    a, b = list(a), list(b)
    names = {record.model for record in a}, {record.model for record in b}
    across = len(names[0]) == len(names[1]) == 1

    def matched(record: Record) -> tuple[str, ...]:
        cell = record.suite, record.modality, record.task, str(record.perturbation)
        return *cell, "" if across else record.model

    there: dict[tuple[str, ...], list[Record]] = {}
    for record in b:
        there.setdefault(matched(record), []).append(record)
    parts = {(record.suite, record.modality, record.task) for record in (*a, *b)}
    found = [
        replace(
            _contrast(record, there[matched(record)]),
            suite=name_part(record.suite, record.modality, record.task, parts),
        )
        for record in _largest(a)
        if matched(record) in there
    ]
    if not found:
        raise StoreError(
            f"nothing to compare: {_describe(a)} and {_describe(b)} share no cell; run the same suite on both"
        )
    adjusted = iter(holm([one.pairs.p for one in found if one.pairs and not one.bound]))
    return [replace(one, p=next(adjusted)) if one.pairs and not one.bound else one for one in found]


def doubts(records: Iterable[Record]) -> list[str]:
    """`own:mini is unreliable on thermal`: the models whose accuracies are in doubt, by their soundness checks."""
    found = {(r.model, str(r.provenance.get("soundness") or ""), r.suite) for r in records}
    return [f"{model} is {badge} on {suite}" for model, badge, suite in sorted(found) if badge in DOUBTED]


def _describe(records: Sequence[Record]) -> str:
    cells = sorted({f"{record.model} on {record.suite}" for record in records})
    return ", ".join(cells[:3] + ["..."] * (len(cells) > 3)) or "no records"


def _largest(records: Iterable[Record]) -> list[Record]:
    """One record a suite, model, perturbation and set of data: that of the most examples."""
    best: dict[object, Record] = {}
    for record in sorted(records, key=lambda record: record.n):
        facts = tuple(record.provenance.get(name) for name in ALIKE)
        best[*place(record), facts] = record
    return sorted(best.values(), key=reading_order)


def _contrast(a: Record, others: Sequence[Record]) -> Contrast:
    """Anchors may differ between models, since a model has its own; not within one."""
    facts = ALIKE if a.model == others[0].model else ALIKE[:2]
    b = min(others, key=lambda other: (len(apart(a, other, facts)), -other.n, other.key))
    contrast = Contrast(suite=a.suite, perturbation=a.perturbation, models=(a.model, b.model))
    why = "; ".join(apart(a, b, facts)) or next((f"{r.model} failed: {r.error}" for r in (a, b) if r.error), "")
    if why:
        return replace(contrast, apart=why)
    n = min(a.n, b.n)
    one, other = flags_of(a)[:n], flags_of(b)[:n]
    sources: Any = a.provenance.get("sources")
    return replace(contrast, a=int(one.sum()), b=int(other.sum()), pairs=Pairs.of(one, other), sources=sources)
