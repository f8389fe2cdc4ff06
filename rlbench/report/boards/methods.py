"""Training methods compared over several rounds: pooled accuracies, paired tests, and what they show.

A round has its own backbone or fine-tuning seed and its own test examples, so that pairs of different rounds are
independent. `rlbench leaderboard --runs` writes the records of rounds and names each run by its job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rlbench.core import Clean, Record, Worst
from rlbench.core.errors import StoreError
from rlbench.core.markdown import grid
from rlbench.core.stats.metrics import holm, mcnemar, wilson
from rlbench.report.boards.ranks import ALPHA, Difference
from rlbench.store.flags import flags_of
from rlbench.store.rounds import of_rounds


@dataclass(frozen=True)
class Measure:
    """An accuracy that methods are compared by.

    Attributes:
        unseen: whether it is that of the classes left out of fine-tuning.
        kind: on clean examples, or in the worst case over the attacks.
    """

    unseen: bool
    kind: Literal["clean", "robust"]

    def __str__(self) -> str:
        return ("unseen, " if self.unseen else "") + self.kind


SEEN_CLEAN, SEEN_ROBUST = Measure(False, "clean"), Measure(False, "robust")
MEASURES = (SEEN_CLEAN, SEEN_ROBUST, Measure(True, "clean"), Measure(True, "robust"))


@dataclass
class Method:
    """A method's results, and the cost and data of its training.

    Attributes:
        name: method and backbone, such as `fare:mini`.
        flags: by measure and round, (n,) bool: which examples are correct.
        forwards: forward passes of training since the backbone, the different values over rounds.
        backwards: the same for backward passes.
        sees: what training saw of the unseen classes.
    """

    name: str
    flags: dict[Measure, dict[str, np.ndarray]] = field(default_factory=dict)
    forwards: set[int] = field(default_factory=set)
    backwards: set[int] = field(default_factory=set)
    sees: set[str] = field(default_factory=set)

    def pool(self, measure: Measure, rounds: Iterable[str]) -> np.ndarray:
        """(N,) bool: the flags of these rounds, concatenated."""
        return np.concatenate([self.flags[measure][name] for name in rounds])

    def score(self, measure: Measure) -> str:
        """The accuracy pooled over rounds in %, its Wilson 95% interval, and the lowest and highest round."""
        rounds = self.flags.get(measure)
        if not rounds:
            return "-"
        pooled = self.pool(measure, rounds)
        low, high = wilson(int(pooled.sum()), len(pooled))
        shares = [100 * float(flags.mean()) for flags in rounds.values()]
        spread = f" ({min(shares):.1f} to {max(shares):.1f})" if len(shares) > 1 else ""
        return f"{100 * pooled.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]{spread}"


def methods(records: Sequence[Record], modality: str) -> list[Method]:
    """The methods of a modality, best first by robust accuracy on seen classes, pooled over rounds.

    Raises:
        StoreError: a cell failed, or methods of one round differ in data, anchors, protocol, seed or n.
    """
    found: dict[str, Method] = {}
    protocols: dict[tuple[Measure, str], object] = {}
    for record in sorted((r for r in records if r.modality == modality), key=lambda r: (r.model, r.suite, r.key)):
        measure, name = _measure_of(record), str(record.provenance["round"])
        if measure is None:
            continue
        if record.flags is None:
            raise StoreError(f"{record.suite}, {record.model}, {record.perturbation} has no flags: {record.error}")
        protocol = (record.n, *(record.provenance[fact] for fact in ("data", "anchors", "protocol", "seed")))
        if protocols.setdefault((measure, name), protocol) != protocol:
            raise StoreError(
                f"{record.suite}, round {name}: {record.model} was tested in another way than the other methods; "
                "n, data, anchors, protocol and seed must be the same"
            )
        method = found.setdefault(record.model, Method(record.model))
        method.flags.setdefault(measure, {})[name] = flags_of(record)
        for passes in ("forwards", "backwards"):
            getattr(method, passes).add(int(record.provenance.get(f"training_{passes}") or 0))
        method.sees.update(filter(None, str(record.provenance.get("sees") or "").split("; ")))
    return sorted(found.values(), key=_rank_by_robustness)


def _rank_by_robustness(method: Method) -> float:
    """The sort key of `methods`; 0, the last place, without robust accuracy."""
    rounds = method.flags.get(SEEN_ROBUST)
    return -float(method.pool(SEEN_ROBUST, rounds).mean()) if rounds else 0.0


def _measure_of(record: Record) -> Measure | None:
    """What a record measures; None for a single attack, a corruption or a choice of texts."""
    unseen = record.suite.endswith("-unseen")
    if isinstance(record.perturbation, Clean):
        return Measure(unseen, "clean")
    worst = isinstance(record.perturbation, Worst) and record.perturbation.text is None
    return Measure(unseen, "robust") if worst else None


def compare_methods(own: Method, others: Sequence[Method], measure: Measure) -> dict[str, Difference]:
    """By name of the other method, `own` minus that method, on the rounds that both have.

    The p-values are those of McNemar's exact test, Holm-adjusted over the other methods.
    """
    counts: dict[str, tuple[float, int, int]] = {}
    for other in others:
        rounds = sorted(set(own.flags.get(measure, {})) & set(other.flags.get(measure, {})))
        if rounds:
            a, b = own.pool(measure, rounds), other.pool(measure, rounds)
            gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
            counts[other.name] = 100 * (gained - lost) / len(a), gained, lost
    ps = [mcnemar(gained, lost) for _, gained, lost in counts.values()]
    adjusted = zip(counts.items(), ps, holm(ps), strict=True)
    return {name: Difference(*count, p, p_holm) for (name, count), p, p_holm in adjusted}


Verdicts = Mapping[Measure, Mapping[str, Difference]]  # by measure and other method, the subject minus that method


def report(records: Iterable[Record], *, subject: str) -> str:
    """Markdown: what the comparison shows of the subject, then by modality a table of scores and one of differences.

    Args:
        records: those without a round are ignored.
        subject: the method that is compared with each other one; not with its ablations, such as `rlbind-no-distil`.

    Raises: as `methods`.
    """
    kept = of_rounds(records)
    parts, verdicts = [], dict[str, Verdicts]()
    for modality in sorted({str(record.modality) for record in kept}):
        found = methods(kept, modality)
        own = next((method for method in found if method.name.split(":")[0] == subject), None)
        parts += [f"## {modality}", _format_scores(found)]
        if own is not None:
            others = [method for method in found if not method.name.startswith(subject)]
            verdicts[modality] = {measure: compare_methods(own, others, measure) for measure in MEASURES}
            parts.append(_format_differences(own, verdicts[modality]))
    return "\n\n".join([*_summarise(subject, verdicts), *parts])


def _format_scores(found: Sequence[Method]) -> str:
    rows = []
    for method in found:
        clean = method.flags[SEEN_CLEAN]
        row: dict[str, object] = {"model": method.name, "rounds": len(clean), "n": sum(map(len, clean.values()))}
        row |= {str(measure): method.score(measure) for measure in MEASURES}
        row["passes"] = f"{_format_passes(method.forwards)} f, {_format_passes(method.backwards)} b"
        row["sees"] = ", ".join(sorted(method.sees)) or "-"
        rows.append(row)
    return grid(rows)


def _format_passes(passes: set[int]) -> str:
    return "/".join(f"{round(n / 1000)}k" for n in sorted(passes))


def _format_differences(own: Method, verdicts: Verdicts) -> str:
    rows: dict[str, dict[str, str]] = {}
    for measure, differences in verdicts.items():
        for other, difference in differences.items():
            rows.setdefault(other, {f"{own.name} minus": other})[str(measure)] = str(difference)
    return grid(list(rows.values()))


def _summarise(subject: str, verdicts: Mapping[str, Verdicts]) -> list[str]:
    """A paragraph on whether the subject is the most robust, and a list: by measure, how it compares with each method.

    Args:
        subject: a method.
        verdicts: by modality; without any, the summary is empty.
    """
    if not verdicts:
        return []
    whole = all(one.verdict == "above" for of in verdicts.values() for one in of[SEEN_ROBUST].values())
    head = (
        f"**What holds.** That {subject} is more robust than every other method on every modality "
        f"{'holds' if whole else 'does not hold as a whole'}. Shown "
        f"(exact McNemar on pairs pooled over rounds, Holm-adjusted over the methods, p < {ALPHA}):"
    )
    return [head, "\n".join(_list_verdicts(subject, measure, verdicts) for measure in MEASURES)]


def _list_verdicts(subject: str, measure: Measure, verdicts: Mapping[str, Verdicts]) -> str:
    """`- **robust**: rlbind is above fare (audio), tecoa (audio); level with ...`."""
    rivals: dict[str, list[str]] = {"above": [], "level": [], "below": []}
    for modality, by_measure in verdicts.items():
        for other, difference in by_measure[measure].items():
            rivals[difference.verdict].append(f"{other.split(':')[0]} ({modality})")
    phrases = {"above": "above", "level": "level with", "below": "below"}
    text = "; ".join(f"{phrases[name]} {', '.join(names)}" for name, names in rivals.items() if names)
    return f"- **{measure}**: {subject} is {text}."
