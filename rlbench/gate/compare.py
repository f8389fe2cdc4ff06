"""Compares two models or two stores on the same examples: paired differences with exact tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlbench.core import Perturbation, Record
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import holm
from rlbench.core.stats.paired import Pairs
from rlbench.gate.regression import COMPARABLE, cell_id, list_differences, name_part
from rlbench.store.columns import reading_order
from rlbench.store.flags import flags_of
from rlbench.store.perturbations import is_bound
from rlbench.store.records import check_namesakes

SHOWN = 3  # the most cells that a sentence names


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The comparison of A and B on one cell.

    Attributes:
        suite: its name.
        perturbation: of the cell.
        models: the names of A and B.
        a: correct examples of A.
        b: correct examples of B.
        pairs: the correctness of the examples under A and B, so that a drop means that B is worse; None if A and B
            can't be compared.
        p: of the two-sided exact McNemar test, Holm-adjusted over the cells of the comparison.
        sources: how many sources the examples share, in which case p is too small; None if each has its own.
        apart: why A and B can't be compared, or "".
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
        """Whether the accuracies are only upper bounds, whose difference means nothing."""
        return is_bound(self.perturbation)

    def verdict(self, alpha: float = 0.05) -> Literal["B above", "B below", "level", "bounds", "not comparable"]:
        """The result in words; "level" if p >= alpha, so that neither is shown to be better."""
        if self.pairs is None:
            return "not comparable"
        if self.bound:
            return "bounds"
        return "level" if self.p >= alpha else "B below" if self.pairs.drop > 0 else "B above"


def compare(a: Iterable[Record], b: Iterable[Record]) -> list[Contrast]:
    """Compares every cell that A and B share.

    Args:
        a: records of A.
        b: records of B. If A and B have one model each, these are compared; otherwise models of the same name.

    Returns:
        One contrast per shared cell, in the order of tables.

    Raises:
        StoreError: they share no cell, or one of them has records of two models of one name.
    """
    a, b = list(a), list(b)
    for side in (a, b):
        check_namesakes(side)
    across = _is_across(a, b)

    def cell(record: Record) -> tuple[str, ...]:
        return _pair_by(record, across)

    others: dict[tuple[str, ...], list[Record]] = {}
    for record in b:
        others.setdefault(cell(record), []).append(record)
    cells = {cell_id(record) for record in (*a, *b)}
    found = [
        replace(_contrast(record, others[cell(record)]), suite=name_part(cell_id(record), cells))
        for record in _select_largest(a)
        if cell(record) in others
    ]
    if not found:
        raise StoreError(
            f"nothing to compare: {_describe(a)} and {_describe(b)} share no cell; run the same suite on both"
        )
    adjusted = iter(holm([one.pairs.p for one in found if one.pairs and not one.bound]))
    return [replace(one, p=next(adjusted)) if one.pairs and not one.bound else one for one in found]


def _is_across(a: Sequence[Record], b: Sequence[Record]) -> bool:
    """Whether A and B have one model each, which are compared whatever their names are."""
    return len({record.model for record in a}) == len({record.model for record in b}) == 1


def _pair_by(record: Record, across: bool) -> tuple[str, ...]:
    """What two records share that are compared: suite, modality, task and perturbation, and the model if not across."""
    suite, modality, model, perturbation, task = cell_id(record)
    return suite, modality, task, perturbation, "" if across else model


def list_missing(a: Sequence[Record], b: Sequence[Record], names: tuple[str, str]) -> list[str]:
    """Sentences about cells that only one side has, so that nothing compares them.

    Args:
        a: records of A.
        b: records of B.
        names: of A and B.
    """
    across = _is_across(a, b)
    sides = [{_pair_by(record, across): None for record in side} for side in (a, b)]
    lines = []
    for (own, other), (name, lacking) in zip((sides, sides[::-1]), (names, names[::-1]), strict=True):
        alone = [" ".join(filter(None, (cell[0], cell[4], cell[3]))) for cell in own if cell not in other]
        if alone:
            shown = ", ".join([*alone[:SHOWN], *["..."] * (len(alone) > SHOWN)])
            lines.append(f"{len(alone)} cells of {name} are not in {lacking} and not compared: {shown}")
    return lines


def _describe(records: Sequence[Record]) -> str:
    cells = sorted({f"{record.model} on {record.suite}" for record in records})
    return ", ".join(cells[:3] + ["..."] * (len(cells) > 3)) or "no records"


def _select_largest(records: Iterable[Record]) -> list[Record]:
    """The record with the most examples of each suite, model, perturbation, protocol, data and anchors."""
    best: dict[object, Record] = {}
    for record in sorted(records, key=lambda record: record.n):
        facts = tuple(record.provenance.get(name) for name in COMPARABLE)
        best[*cell_id(record), facts] = record
    return sorted(best.values(), key=reading_order)


def _contrast(a: Record, others: Sequence[Record]) -> Contrast:
    """Compares a record with the best match among others.

    Two models have their own anchors; for records of the same model the anchors must be equal.
    """
    facts = COMPARABLE if a.model == others[0].model else ("protocol", "data")
    b = min(others, key=lambda other: (len(list_differences(a, other, facts)), -other.n, other.key))
    contrast = Contrast(suite=a.suite, perturbation=a.perturbation, models=(a.model, b.model))
    failure = next((f"{r.model} failed: {r.error}" for r in (a, b) if r.error), "")
    if why := "; ".join(list_differences(a, b, facts)) or failure:
        return replace(contrast, apart=why)
    n = min(a.n, b.n)
    one, other = flags_of(a)[:n], flags_of(b)[:n]
    sources: Any = a.provenance.get("sources")
    return replace(contrast, a=int(one.sum()), b=int(other.sum()), pairs=Pairs.of(one, other), sources=sources)
