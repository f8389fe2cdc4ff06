"""The regression gate: fresh records against reference records, paired on examples.

A cell FAILs if its drop is real (one-sided exact McNemar, Holm-adjusted over the cells) and exceeds the margin, if it
crashed, or if its soundness went down. It PASSes if the upper bound of its drop is below the margin; else it is
INCONCLUSIVE: the examples are too few to tell. It is MISSING if there is nothing that it can be compared with. Two
machines differ by a few flips in both directions, which no exact test takes for a drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rlbench.core import Record
from rlbench.core.badges import RANK
from rlbench.core.errors import FieldError
from rlbench.core.stats.metrics import holm
from rlbench.core.stats.paired import Pairs, power
from rlbench.store.flags import flags_of

Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "MISSING"]


ALIKE = ("protocol", "data", "anchors")  # what must be the same on both sides


MACHINE = ("device", "dtype", "torch", "numpy", "rlbench")


POWER, FLIPS = 5.0, 15.0  # points of a drop, and of flips, that the gate's power is stated for


Place = tuple[str, str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What fails. margin: points that a drop may have; alpha: the false alarms of the whole gate.

    strict: what is inconclusive or better than it can be by chance fails, too.
    """

    margin: float = 2.0
    alpha: float = 0.05
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 100:
            raise FieldError(f"margin is {self.margin}; it must be points, 0 or more and below 100")
        if not 0 < self.alpha < 0.5:
            raise FieldError(f"alpha is {self.alpha}; it must be above 0 and below 0.5")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of a cell.

    Attributes:
        reason: why it is not PASS; or of a gain, what it may mean.
        before, after: examples that are correct; None where that side has no counts.
        pairs: of the examples that both sides have. p: Holm-adjusted, of a drop. upper: bound of the drop, in points.
        detectable: the smallest drop that these flips would show, in points.
        gain: it rose by more than that; the attack may have got weaker.
        lost, gained: ids of the examples that flipped.
    """

    suite: str
    model: str
    perturbation: str
    status: Status
    reason: str = ""
    before: int | None = None
    after: int | None = None
    pairs: Pairs | None = None
    p: float = 1.0
    upper: float = 100.0
    detectable: float = 100.0
    gain: bool = False
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All verdicts. `notes`: differences of the machines, and what else weakens the comparison."""

    verdicts: tuple[Verdict, ...]
    policy: Policy
    notes: tuple[str, ...] = ()

    def of(self, status: Status) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.status == status]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 error: a cell is missing, or there is none."""
        if self.of("MISSING") or not self.verdicts:
            return 2
        strict = self.policy.strict and (self.of("INCONCLUSIVE") or any(v.gain for v in self.verdicts))
        return int(bool(self.of("FAIL") or strict))

    @property
    def n(self) -> int:
        """Examples of the smallest cell."""
        return min((v.pairs.n for v in self.verdicts if v.pairs), default=0)

    @cached_property
    def power(self) -> float:
        """The chance that a cell of n examples fails if it drops by POWER points while FLIPS percent of them flip."""
        cells = sum(v.pairs is not None for v in self.verdicts)
        if not cells:
            return 0.0
        return power(self.n, POWER, FLIPS, alpha=self.policy.alpha, cells=cells, margin=self.policy.margin)


def place(record: Record) -> Place:
    """Which cell it is: suite, modality, model, perturbation, task."""
    return record.suite, record.modality, record.model, str(record.perturbation), record.task


def name_part(suite: str, modality: str, task: str, parts: Iterable[tuple[str, str, str]]) -> str:
    """The suite's name, with the modality or the task where several of its parts are compared.

    Args:
        parts: the suite, modality and task of every part.
    """
    own = {(other, name) for of, other, name in parts if of == suite}
    modalities = {other for other, _ in own}
    return suite if len(own) < 2 else f"{suite}:{modality if len(modalities) == len(own) else task}"


def apart(one: Record, other: Record, facts: Iterable[str] = ALIKE) -> list[str]:
    """What keeps two records from being compared: `protocol aa, not bb`."""
    pairs = {name: (one.provenance.get(name), other.provenance.get(name)) for name in facts}
    return [f"{name} {b}, not {a}" for name, (a, b) in pairs.items() if a != b]


def gate(
    references: Sequence[Record],
    fresh: Sequence[Record],
    policy: Policy | None = None,
    ids: Mapping[object, Sequence[str]] | None = None,
    asked: Iterable[tuple[str, str, str]] = (),
) -> Report:
    """Compares every cell of the suites and models that `fresh` has or that are asked for, and of those alone.

    Args:
        ids: of the examples, by the hash of their data; flips of others are named by their number.
        asked: further (suite, modality, model), of which `fresh` may have nothing.
    """
    policy = policy or Policy()
    scope = {place(record)[:3] for record in fresh} | set(asked)
    known: dict[Place, list[Record]] = {}
    for record in references:
        if place(record)[:3] in scope:
            known.setdefault(place(record), []).append(record)
    here = {place(record): record for record in sorted(fresh, key=lambda record: record.n)}
    places = dict.fromkeys([*here, *known])
    drafts = [_draft(known.get(at, []), here.get(at), at, ids or {}) for at in places]
    parts = {(at[0], at[1], at[4]) for at in places}
    drafts = [
        replace(draft, suite=name_part(at[0], at[1], at[4], parts)) for at, draft in zip(places, drafts, strict=True)
    ]
    tested = [draft for draft in drafts if draft.pairs is not None]
    adjusted = iter(holm([draft.pairs.p_drop for draft in tested if draft.pairs]))
    judged = tuple(
        draft if draft.pairs is None else _judge(draft, draft.pairs, next(adjusted), len(tested), policy)
        for draft in drafts
    )
    matched = [(_matching(known.get(at, []), record), record) for at, record in here.items()]
    return Report(judged, policy, _notes([(one, other) for one, other in matched if one is not None]))


def _matching(references: Sequence[Record], fresh: Record) -> Record | None:
    """The reference record of the same protocol, data and anchors; of several, the one of as many examples."""
    alike = [one for one in references if not apart(one, fresh) and one.error is None]
    return min(alike, key=lambda one: (abs(one.n - fresh.n), one.key), default=None)


def _draft(
    references: Sequence[Record], fresh: Record | None, at: Place, ids: Mapping[object, Sequence[str]]
) -> Verdict:
    """What can be said of a cell alone: FAIL and MISSING are final, INCONCLUSIVE is not yet judged."""
    suite, _, model, perturbation, _ = at
    draft = Verdict(suite=suite, model=model, perturbation=perturbation, status="MISSING")
    if fresh is None:
        return replace(draft, reason="the reference has this cell, and this run does not: run the whole suite")
    if not references:
        return replace(draft, reason="it has no reference: rlbench check --update makes one", after=fresh.n_correct)
    if fresh.error is not None:
        return replace(draft, status="FAIL", reason=f"it failed: {fresh.error}", before=references[0].n_correct)
    reference = _matching(references, fresh)
    if reference is None:
        failed = next((f"it failed there: {one.error}" for one in references if one.error is not None), "")
        why = failed or "; ".join(apart(references[-1], fresh))
        return replace(draft, reason=f"no reference is like it ({why}): rlbench check --update makes new ones")
    n = min(reference.n, fresh.n)  # a prefix of the examples never changes
    old, new = flags_of(reference)[:n], flags_of(fresh)[:n]
    names = ids.get(fresh.provenance.get("data")) or [f"#{row}" for row in range(n)]
    draft = replace(draft, before=int(old.sum()), after=int(new.sum()), pairs=Pairs.of(old, new))
    flips = {"lost": old & ~new, "gained": new & ~old}
    lists = {kind: tuple(names[row] for row in flipped.nonzero()[0]) for kind, flipped in flips.items()}
    worse = _downgrade(reference, fresh)
    return replace(draft, status="FAIL" if worse else "INCONCLUSIVE", reason=worse, **lists)  # type: ignore[arg-type]


def _downgrade(reference: Record, fresh: Record) -> str:
    """Says that the soundness went down, where both sides have a badge."""
    before, after = (str(one.provenance.get("soundness")) for one in (reference, fresh))
    ranks: dict[str, int] = {badge: rank for rank, badge in enumerate(RANK)}
    worse = before in ranks and after in ranks and ranks[after] > ranks[before]
    return f"its soundness went down from {before} to {after}" if worse else ""


def _judge(draft: Verdict, pairs: Pairs, p: float, cells: int, policy: Policy) -> Verdict:
    upper, detectable = pairs.upper(1 - policy.alpha), pairs.detectable(alpha=policy.alpha / cells)
    gain = -pairs.drop > detectable
    status, reason = draft.status, draft.reason
    if p < policy.alpha and pairs.drop > policy.margin:
        status = "FAIL"
        drop = f"it dropped by {pairs.drop:.1f} points (p {p:.2g}), over the margin of {policy.margin:g}"
        reason = "; ".join(filter(None, (reason, drop)))
    elif status == "INCONCLUSIVE" and upper < policy.margin:
        status = "PASS"
    elif status == "INCONCLUSIVE":
        reason = f"{pairs.n} examples can't exclude a drop of {policy.margin:g} points; it may be up to {upper:.1f}"
    if gain:
        reason = "; ".join(filter(None, (reason, f"it rose by {-pairs.drop:.1f} points: did an attack get weaker?")))
    return replace(draft, status=status, reason=reason, p=p, upper=upper, detectable=detectable, gain=gain)


def _notes(pairs: Sequence[tuple[Record, Record]]) -> tuple[str, ...]:
    """What the two sides were made with, where it differs; and examples that are not independent."""
    said = {}
    for reference, fresh in pairs:
        for name in MACHINE:
            a, b = reference.provenance.get(name), fresh.provenance.get(name)
            if a != b:
                said[f"the references were made with {name} {a}, this run with {b}"] = 0
        if sources := fresh.provenance.get("sources"):
            many = f"the {fresh.n} examples of {fresh.suite} share {sources} sources"
            said[f"{many}: the tests take them for independent, and are too sure"] = 0
    return tuple(said)
