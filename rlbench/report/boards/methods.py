"""Methods compared over rounds of training: pooled accuracies, paired tests, and sentences that say what holds.

A round is a backbone, a fine-tuning seed and a set of test examples of its own, so that pooled pairs are independent.
Records of rounds come from `rlbench leaderboard --runs`, which names a run's folder by its job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from rlbench.core import Clean, Record, Worst
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import format_p, holm, mcnemar, wilson
from rlbench.store.flags import flags_of
from rlbench.store.rounds import of_rounds

Measure = Literal["clean", "robust"]


ALPHA = 0.05


@dataclass(frozen=True)
class Column:
    """What is measured: on seen or unseen classes, clean or in the worst case."""

    unseen: bool
    measure: Measure

    def __str__(self) -> str:
        return ("unseen, " if self.unseen else "") + self.measure


COLUMNS = tuple(Column(unseen, measure) for unseen in (False, True) for measure in ("clean", "robust"))


@dataclass
class Method:
    """A method's flags by column and round, each (n,) bool, and what its training cost and saw."""

    name: str
    flags: dict[Column, dict[str, np.ndarray]] = field(default_factory=dict)
    forwards: set[int] = field(default_factory=set)
    backwards: set[int] = field(default_factory=set)
    sees: set[str] = field(default_factory=set)

    def pooled(self, column: Column, rounds: Iterable[str]) -> np.ndarray:
        """The flags of some rounds, one after the other."""
        return np.concatenate([self.flags[column][turn] for turn in rounds])

    def score(self, column: Column) -> str:
        """In %: the pooled accuracy, its Wilson 95% interval, and the lowest and highest round."""
        turns = self.flags.get(column)
        if not turns:
            return "-"
        pooled = self.pooled(column, turns)
        low, high = wilson(int(pooled.sum()), len(pooled))
        shares = [100 * float(flags.mean()) for flags in turns.values()]
        spread = f" ({min(shares):.1f} to {max(shares):.1f})" if len(shares) > 1 else ""
        return f"{100 * pooled.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]{spread}"


def methods(records: Sequence[Record], modality: str) -> list[Method]:
    """The methods of a modality, in the order of their pooled robust accuracy on seen classes, best first.

    Raises:
        StoreError: a failed cell, or rounds whose methods saw other data or attacks.
    """
    found: dict[str, Method] = {}
    protocols: dict[tuple[Column, str], object] = {}
    for record in sorted((r for r in records if r.modality == modality), key=lambda r: (r.model, r.suite, r.key)):
        column, turn = _column(record), str(record.provenance["round"])
        if column is None:
            continue
        if record.flags is None:
            raise StoreError(f"{record.suite}, {record.model}, {record.perturbation} has no flags: {record.error}")
        same = (record.n, *(record.provenance[name] for name in ("data", "anchors", "protocol", "seed")))
        if protocols.setdefault((column, turn), same) != same:
            raise StoreError(f"{record.suite}, round {turn}: {record.model} was tested in another way than the others")
        method = found.setdefault(record.model, Method(record.model))
        method.flags.setdefault(column, {})[turn] = flags_of(record)
        for name in ("forwards", "backwards"):
            getattr(method, name).add(int(record.provenance.get(f"training_{name}") or 0))
        method.sees.update(filter(None, str(record.provenance.get("sees") or "").split("; ")))
    best = COLUMNS[1]
    return sorted(
        found.values(), key=lambda m: -float(m.pooled(best, m.flags[best]).mean()) if best in m.flags else 0.0
    )


def _column(record: Record) -> Column | None:
    unseen = record.suite.endswith("-unseen")
    if isinstance(record.perturbation, Clean):
        return Column(unseen, "clean")
    return Column(unseen, "robust") if isinstance(record.perturbation, Worst) else None


@dataclass(frozen=True)
class Comparison:
    """Two methods on the pairs of the rounds that both have: the difference in points, and its exact McNemar p.

    `p_holm` is adjusted for the number of methods that the first one is compared with in this column.
    """

    other: str
    points: float
    only_own: int
    only_other: int
    p: float
    p_holm: float = 1.0

    @property
    def verdict(self) -> Literal["above", "below", "level"]:
        """ "level" where the adjusted p is not below 0.05: neither is shown to be better."""
        return "level" if self.p_holm >= ALPHA else "above" if self.points > 0 else "below"


def compare_methods(own: Method, others: Sequence[Method], column: Column) -> list[Comparison]:
    """One method with each other one."""
    found = []
    for other in others:
        rounds = sorted(set(own.flags.get(column, {})) & set(other.flags.get(column, {})))
        if rounds:
            a, b = own.pooled(column, rounds), other.pooled(column, rounds)
            gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
            points = 100 * (gained - lost) / len(a)
            found.append(Comparison(other.name, points, gained, lost, mcnemar(gained, lost)))
    adjusted = holm([one.p for one in found])
    return [Comparison(**{**vars(one), "p_holm": p}) for one, p in zip(found, adjusted, strict=True)]


def report(records: Iterable[Record], *, subject: str) -> str:
    """Markdown: a table of scores and one of paired differences a modality, and what holds of the claim."""
    kept = of_rounds(records)
    parts, verdicts = [], {}
    for modality in dict.fromkeys(record.modality for record in sorted(kept, key=lambda r: r.modality)):
        found = methods(kept, modality)
        own = next((method for method in found if method.name.split(":")[0] == subject), None)
        parts += [f"## {modality}", _scores(found)]
        if own is not None:
            others = [method for method in found if not method.name.startswith(subject)]  # not its ablations
            verdicts[str(modality)] = {column: compare_methods(own, others, column) for column in COLUMNS}
            parts.append(_differences(own, verdicts[str(modality)]))
    return "\n\n".join([*_holds(subject, verdicts), *parts])


def _scores(found: Sequence[Method]) -> str:
    rows = []
    for method in found:
        n = {column: sum(map(len, method.flags.get(column, {}).values())) for column in COLUMNS}
        row: dict[str, object] = {"model": method.name, "rounds": len(method.flags[COLUMNS[0]]), "n": n[COLUMNS[0]]}
        row |= {str(column): method.score(column) for column in COLUMNS}
        row["passes"] = f"{_thousands(method.forwards)} f, {_thousands(method.backwards)} b"
        row["sees"] = ", ".join(sorted(method.sees)) or "-"
        rows.append(row)
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _thousands(passes: set[int]) -> str:
    return "/".join(f"{round(n / 1000)}k" for n in sorted(passes))


def _differences(own: Method, by_column: Mapping[Column, Sequence[Comparison]]) -> str:
    rows: dict[str, dict[str, str]] = {}
    for column, comparisons in by_column.items():
        for one in comparisons:
            text = (
                f"{one.points:+.1f} ({one.only_own}:{one.only_other}, p {format_p(one.p)}, Holm {format_p(one.p_holm)})"
            )
            rows.setdefault(one.other, {})[str(column)] = text
    table = [{f"{own.name} minus": other, **cells} for other, cells in rows.items()]
    return str(pd.DataFrame(table).fillna("-").to_markdown(index=False, disable_numparse=True))


def _holds(subject: str, verdicts: Mapping[str, Mapping[Column, Sequence[Comparison]]]) -> list[str]:
    """One line a column: where the subject is shown to be above, level with, or below each other method."""
    if not verdicts:
        return []
    lines = []
    for column in COLUMNS:
        said: dict[str, list[str]] = {"above": [], "level": [], "below": []}
        for modality, by_column in verdicts.items():
            for one in by_column[column]:
                said[one.verdict].append(f"{one.other.split(':')[0]} ({modality})")
        text = "; ".join(
            f"{name} {'with ' if name == 'level' else ''}{', '.join(those)}" for name, those in said.items() if those
        )
        lines.append(f"- **{column}**: {subject} is {text}.")
    whole = all(c.verdict == "above" for by in verdicts.values() for c in by[COLUMNS[1]])
    verdict = "holds" if whole else "does not hold as a whole"
    head = (
        f"**What holds.** That {subject} is more robust than every other method on every modality {verdict}. Shown "
        f"(exact McNemar on pairs pooled over rounds, Holm-adjusted over the methods, p < {ALPHA}):"
    )
    return [head, "\n".join(lines)]
