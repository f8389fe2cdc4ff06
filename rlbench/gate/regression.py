"""The regression gate: compares fresh records with reference records, paired on examples.

FAIL: the drop is significant (one-sided exact McNemar test, Holm-adjusted over the cells) and exceeds the margin, or
the cell crashed, or its soundness badge got worse. PASS: the upper bound of the drop is below the margin. INCONCLUSIVE:
neither, since the examples are too few to tell. MISSING: there is nothing to compare the cell with. Rounding on another
machine flips a few examples in both directions, which is not significant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rlbench.core import Record
from rlbench.core.badges import DOUBTED, RANK
from rlbench.core.errors import FieldError
from rlbench.core.stats.metrics import format_p, holm
from rlbench.core.stats.paired import Pairs, power
from rlbench.store.flags import flags_of
from rlbench.store.records import check_namesakes

Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "MISSING"]
CellId = tuple[str, str, str, str, str]  # suite, modality, model, perturbation, task
COMPARABLE = ("protocol", "data", "anchors")  # provenance that must be equal on both sides
MACHINE = ("device", "dtype", "torch", "numpy", "rlbench")  # provenance whose differences are noted
POWER, FLIPS = 5.0, 15.0  # the drop and the flips, in points, for which the gate's power is reported


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When the gate fails.

    Attributes:
        margin: the largest drop that is allowed, in points; 0 <= margin < 100.
        alpha: the probability that the whole gate fails although nothing changed; 0 < alpha < 0.5.
        strict: whether inconclusive cells and significant gains fail as well.
    """

    margin: float = 2.0
    alpha: float = 0.05
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 100:
            raise FieldError(f"margin is {self.margin}; it must be in points, at least 0 and below 100")
        if not 0 < self.alpha < 0.5:
            raise FieldError(f"alpha is {self.alpha}; it must be above 0 and below 0.5")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The gate's result for one cell.

    Attributes:
        suite: its name, as NAME:MODALITY if several parts of a suite are compared.
        model: its name.
        perturbation: its text.
        status: PASS, FAIL, INCONCLUSIVE or MISSING.
        reason: why it is not PASS, or what a gain may mean.
        before: correct examples of the reference; None without counts.
        after: correct examples of the fresh record; None without counts.
        pairs: the correctness of the examples that both sides have; None if they can't be compared.
        p: of a drop, one-sided and Holm-adjusted.
        upper: the upper bound of the drop, in points.
        detectable: the smallest drop that the test would detect with this number of flips, in points.
        gain: whether accuracy rose by more than `detectable`, so that an attack may have become weaker.
        lost: ids of the examples that are correct only in the reference.
        gained: ids of the examples that are correct only in the fresh record.
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
    """The result of the gate.

    Attributes:
        verdicts: one per cell.
        policy: when it fails.
        notes: sentences about other versions, another device, and examples that are not independent.
    """

    verdicts: tuple[Verdict, ...]
    policy: Policy
    notes: tuple[str, ...] = ()

    def of(self, status: Status) -> list[Verdict]:
        """The verdicts with a status."""
        return [verdict for verdict in self.verdicts if verdict.status == status]

    @property
    def exit_code(self) -> int:
        """0: pass; 1: fail; 2: a cell is missing, there are no cells, or no drop could fail (see `blind`)."""
        if self.of("MISSING") or not self.verdicts or (self.blind and not self.of("FAIL")):
            return 2
        strict = self.policy.strict and (self.of("INCONCLUSIVE") or any(v.gain for v in self.verdicts))
        return int(bool(self.of("FAIL") or strict))

    @property
    def n(self) -> int:
        """The number of examples of the smallest cell that was compared; 0 if none was."""
        return min((v.pairs.n for v in self.verdicts if v.pairs), default=0)

    @property
    def blind(self) -> bool:
        """Whether the examples are so few that no cell fails even if all of them are lost."""
        sizes = [v.pairs.n for v in self.verdicts if v.pairs]
        return bool(sizes) and len(sizes) * 0.5 ** max(sizes) >= self.policy.alpha

    @cached_property
    def power(self) -> float:
        """The probability that a cell of n examples fails if it drops by POWER points while FLIPS percent flip."""
        cells = sum(v.pairs is not None for v in self.verdicts)
        if not cells:
            return 0.0
        return power(self.n, POWER, FLIPS, alpha=self.policy.alpha, cells=cells, margin=self.policy.margin)


def cell_id(record: Record) -> CellId:
    """The cell of a record: suite, modality, model, perturbation, task."""
    return record.suite, record.modality, record.model, str(record.perturbation), record.task


def list_differences(one: Record, other: Record, facts: Iterable[str] = COMPARABLE) -> list[str]:
    """The provenance that differs, so that two records can't be compared: `protocol bb, not aa`."""
    pairs = {name: (one.provenance.get(name), other.provenance.get(name)) for name in facts}
    return [f"{name} {b}, not {a}" for name, (a, b) in pairs.items() if a != b]


def gate(
    references: Sequence[Record],
    fresh: Sequence[Record],
    policy: Policy | None = None,
    ids: Mapping[object, Sequence[str]] | None = None,
    required: Iterable[tuple[str, str, str]] = (),
) -> Report:
    """Compares every cell of the suites and models that `fresh` has or that `required` names; ignores all others.

    Args:
        references: the reference records.
        fresh: the records to check.
        policy: when the gate fails (default: `Policy()`).
        ids: the examples' ids by the hash of their data; without ids, examples are named by their number.
        required: (suite, modality, model) whose references must have fresh records.

    Raises:
        StoreError: a side has records of two models of one name.
    """
    policy = policy or Policy()
    scope = {cell_id(record)[:3] for record in fresh} | set(required)
    references = [record for record in references if cell_id(record)[:3] in scope]
    for side in (references, fresh):
        check_namesakes(side)
    old: dict[CellId, list[Record]] = {}
    for record in references:
        old.setdefault(cell_id(record), []).append(record)
    new = {cell_id(record): record for record in sorted(fresh, key=lambda record: record.n)}
    cells = dict.fromkeys([*new, *old])
    drafts = [_draft(old.get(cell, []), new.get(cell), cell, ids or {}) for cell in cells]
    drafts = [replace(draft, suite=name_part(cell, cells)) for cell, draft in zip(cells, drafts, strict=True)]
    pairs = [draft.pairs for draft in drafts if draft.pairs is not None]
    adjusted = iter(holm([one.p_drop for one in pairs]))
    verdicts = tuple(
        draft if draft.pairs is None else _judge(draft, draft.pairs, next(adjusted), len(pairs), policy)
        for draft in drafts
    )
    matches = [(_find_match(old.get(cell, []), record), record) for cell, record in new.items()]
    return Report(verdicts, policy, _list_notes([(one, other) for one, other in matches if one is not None]))


def name_part(cell: CellId, cells: Iterable[CellId]) -> str:
    """The suite's name, with the modality or the task if several of its parts are compared."""
    parts = {(modality, task) for suite, modality, _, _, task in cells if suite == cell[0]}
    modalities = {modality for modality, _ in parts}
    return cell[0] if len(parts) == 1 else f"{cell[0]}:{cell[1] if len(modalities) == len(parts) else cell[4]}"


def _find_match(references: Sequence[Record], fresh: Record) -> Record | None:
    """The reference record with the same protocol, data and anchors, and the nearest number of examples."""
    matches = [one for one in references if not list_differences(one, fresh) and one.error is None]
    return min(matches, key=lambda one: (abs(one.n - fresh.n), one.key), default=None)


def _draft(
    references: Sequence[Record], fresh: Record | None, cell: CellId, ids: Mapping[object, Sequence[str]]
) -> Verdict:
    """The verdict before the statistical tests: FAIL and MISSING are final, INCONCLUSIVE is provisional."""
    suite, _, model, perturbation, _ = cell
    draft = Verdict(suite=suite, model=model, perturbation=perturbation, status="MISSING")
    if fresh is None:
        return replace(draft, reason="the reference has this cell, but this run does not: run the whole suite")
    if not references:
        return replace(draft, reason="it has no reference: rlbench check --update writes one", after=fresh.n_correct)
    if fresh.error is not None:
        return replace(draft, status="FAIL", reason=f"it failed: {fresh.error}", before=references[0].n_correct)
    reference = _find_match(references, fresh)
    if reference is None:
        failure = next((f"the reference failed: {one.error}" for one in references if one.error is not None), "")
        why = failure or "; ".join(list_differences(references[-1], fresh))
        return replace(draft, reason=f"no reference can be compared ({why}): rlbench check --update writes new ones")
    n = min(reference.n, fresh.n)  # the first n examples are the same on both sides
    old, new = flags_of(reference)[:n], flags_of(fresh)[:n]
    names = ids.get(fresh.provenance.get("data")) or [f"#{row}" for row in range(n)]
    draft = replace(draft, before=int(old.sum()), after=int(new.sum()), pairs=Pairs.of(old, new))
    flips = {"lost": old & ~new, "gained": new & ~old}
    lists = {kind: tuple(names[row] for row in flipped.nonzero()[0]) for kind, flipped in flips.items()}
    worse = _describe_downgrade(reference, fresh)
    return replace(draft, status="FAIL" if worse else "INCONCLUSIVE", reason=worse, **lists)  # type: ignore[arg-type]


def _describe_downgrade(reference: Record, fresh: Record) -> str:
    """Says that the soundness badge got worse; "" if it did not, or if a side has no badge."""
    before, after = (str(one.provenance.get("soundness")) for one in (reference, fresh))
    ranks: dict[str, int] = {badge: rank for rank, badge in enumerate(RANK)}
    worse = before in ranks and after in ranks and ranks[after] > ranks[before]
    return f"its soundness went down from {before} to {after}" if worse else ""


def _judge(draft: Verdict, pairs: Pairs, p: float, cells: int, policy: Policy) -> Verdict:
    """The final verdict of a cell.

    Args:
        draft: its provisional verdict.
        pairs: its examples on both sides.
        p: Holm-adjusted.
        cells: how many cells are tested.
        policy: when it fails.
    """
    upper, detectable = pairs.upper(1 - policy.alpha), pairs.detectable(alpha=policy.alpha / cells)
    gain = -pairs.drop > detectable
    status, reason = draft.status, draft.reason
    if p < policy.alpha and pairs.drop > policy.margin:
        status = "FAIL"
        chance = format_p(p, equation=True)
        drop = f"it dropped by {pairs.drop:.1f} points ({chance}), over the margin of {policy.margin:g}"
        reason = "; ".join(filter(None, (reason, drop)))
    elif status == "INCONCLUSIVE" and upper < policy.margin:
        status = "PASS"
    elif status == "INCONCLUSIVE":
        reason = f"{pairs.n} examples can't rule out a drop of {policy.margin:g} points; it may be up to {upper:.1f}"
    if gain:
        reason = "; ".join(filter(None, (reason, f"it rose by {-pairs.drop:.1f} points: did an attack get weaker?")))
    return replace(draft, status=status, reason=reason, p=p, upper=upper, detectable=detectable, gain=gain)


def doubts(records: Iterable[Record]) -> list[str]:
    """Sentences about models whose soundness badge is bad: `own:mini is unreliable on thermal: ...`."""
    found = {(r.model, str(r.provenance.get("soundness") or ""), r.suite) for r in records}
    return [
        f"{model} is {badge} on {suite}: its accuracies may be too high"
        for model, badge, suite in sorted(found)
        if badge in DOUBTED
    ]


def _list_notes(pairs: Sequence[tuple[Record, Record]]) -> tuple[str, ...]:
    """Sentences about doubts, other sizes, versions and devices, and dependent examples, without repeats."""
    notes = dict.fromkeys(doubts(fresh for _, fresh in pairs))
    for reference, fresh in pairs:
        if reference.n != fresh.n:
            sizes = f"the references of {fresh.suite} have {reference.n} examples, this run {fresh.n}"
            notes[f"{sizes}; only the first {min(reference.n, fresh.n)} are compared"] = None
        for name in MACHINE:
            a, b = reference.provenance.get(name), fresh.provenance.get(name)
            if a != b:
                notes[f"the references were made with {name} {a}, this run with {b}"] = None
        if sources := fresh.provenance.get("sources"):
            count = f"the {fresh.n} examples of {fresh.suite} share {sources} sources"
            notes[f"{count}; the tests assume independent examples, so p is too small"] = None
    return tuple(notes)
