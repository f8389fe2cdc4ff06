"""Verifies an entry: runs a random subset of its examples again, and tests whether the claims can be true.

With flags (which examples are said to be correct): of those that the claim has right and that were run again, `lost`
are wrong. Were at most `margin` points of the claim unfounded, `lost` would be hypergeometric; the claim is refuted if
it is too large for that. Without flags: the examples that are correct are binomial, and refute the claim if they are
too few for its share less the margin. Both tests are one-sided and exact, Holm-adjusted over the claims. Two machines
differ by a few flips, which is what the margin is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rlbench.core import Perturbation, Record, Suite
from rlbench.core.errors import FieldError, StoreError
from rlbench.core.seeds import generator
from rlbench.core.stats.acceptance_sampling import least_lost, least_share, p_few, p_lost
from rlbench.core.stats.metrics import holm
from rlbench.core.suite import load_suites
from rlbench.encoders.models import resolve_plain
from rlbench.engine import cells
from rlbench.gate.submission import Claim, Entry
from rlbench.store.flags import flags_of
from rlbench.tasks.subset import select_examples


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the subset says of a claim.

    Attributes:
        claimed, n: of the claim. correct, k: of the subset. lost, gained: against the claim's flags; None without.
        test: "hypergeometric" or "binomial". p: Holm-adjusted; alpha: below which the claim is refuted.
        detectable: the overstatement, in points, that would have been refuted with probability .95.
    """

    perturbation: str
    claimed: int
    n: int
    correct: int
    k: int
    lost: int | None
    gained: int | None
    test: str
    p: float
    alpha: float
    detectable: float


@dataclass(frozen=True)
class Verified:
    """All findings, in the entry's order; the seed of the subset; and its rows."""

    entry: Entry
    findings: tuple[Finding, ...]
    seed: int
    rows: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """No claim is refuted."""
        return all(finding.p >= finding.alpha for finding in self.findings)

    @property
    def detectable(self) -> float:
        """Of the claim that the subset says least about, in points."""
        return max(finding.detectable for finding in self.findings)


def verify(
    entry: Entry,
    *,
    examples: int = 100,
    seed: int = 0,
    margin: float = 1.0,
    alpha: float = 0.05,
    model: str | None = None,
    report: Callable[[Any], None] | None = None,
    **options: Any,
) -> Verified:
    """Runs `examples` of the claimed ones again, drawn by the seed, in a temporary store.

    Args:
        margin: points by which a claim may be over what is found without being refuted.
        model: where the model is here [default: the entry's name].
        report: called with the `runner.Progress`. options: of `planner.plan`.

    Raises: FieldError, RLBenchError; StoreError where the weights, protocol, data or anchors are not the entry's.
    """
    from rlbench.engine.plan.planner import plan
    from rlbench.engine.run.runner import execute

    if not 0 <= margin < 100 or not 0 < alpha < 1 or examples < 1:
        raise FieldError(f"margin {margin}, alpha {alpha}, examples {examples}: points below 100, a share, at least 1")
    model = model or resolve_plain(entry.model, f"the entry of {entry.suite}").name
    suite = _suite(entry)
    n = min(claim.n for claim in entry.claims)
    drawn = generator("verify", seed, entry.suite, entry.model).permutation(n)[: min(examples, n)]
    rows = tuple(sorted(drawn.tolist()))
    part = replace(suite, task=select_examples(suite.task, rows), examples=len(rows))
    with TemporaryDirectory(prefix="rlbench-verify-") as folder:
        planned = plan(part, model, store=folder, **options)
        _same_subject(entry, suite, planned.pairs[0].subject)
        records = execute(planned, report or (lambda progress: None))
    return Verified(entry, judge_subset(entry.claims, rows, records, margin=margin, alpha=alpha), seed, rows)


def _suite(entry: Entry) -> Suite:
    """The suite that the claims are of, their protocols checked."""
    names = {str(claim.perturbation) for claim in entry.claims}
    found = [suite for suite in load_suites(entry.suite) if names <= {str(p) for p in suite.perturbations}]
    if not found:
        raise StoreError(f"{entry.suite} has not all of the columns that are claimed: {', '.join(sorted(names))}")
    columns: dict[str, Perturbation] = {str(p): p for p in found[0].perturbations}
    for claim in entry.claims:
        here = cells.protocol(found[0], columns[str(claim.perturbation)])
        if here != claim.protocol:
            raise StoreError(
                f"{claim.perturbation} is claimed under protocol {claim.protocol}, and is {here} in {entry.suite} "
                f"v{found[0].version} here: claim it anew, or verify it with the rlbench that made it"
            )
    return found[0]


def _same_subject(entry: Entry, suite: Suite, subject: dict[str, object]) -> None:
    here = {"checkpoint": subject["checkpoint"], "anchors": subject["anchors"], "data": suite.task.fingerprint()}
    for claim in entry.claims:
        there = {"checkpoint": entry.checkpoint, "anchors": claim.anchors, "data": claim.data}
        for name, value in there.items():
            if value != here[name]:
                raise StoreError(f"{claim.perturbation} is claimed with {name} {value}; here it is {here[name]}")


def judge_subset(
    claims: Sequence[Claim], rows: Sequence[int], records: Sequence[Record], *, margin: float, alpha: float
) -> tuple[Finding, ...]:
    """The findings of a subset's records; a cell that failed here refutes its claim."""
    by_name = {str(record.perturbation): record for record in records}
    found = [
        _finding(claim, rows, by_name[str(claim.perturbation)], margin, alpha / len(claims), alpha) for claim in claims
    ]
    adjusted = holm([finding.p for finding in found])
    return tuple(replace(finding, p=p) for finding, p in zip(found, adjusted, strict=True))


def _finding(claim: Claim, rows: Sequence[int], record: Record, margin: float, level: float, alpha: float) -> Finding:
    now = flags_of(record) if record.error is None else np.zeros(len(rows), dtype=bool)
    k, correct = len(rows), int(now.sum())
    lost = gained = None
    if claim.flags is None:
        share = max(0.0, claim.n_correct / claim.n - margin / 100)
        p, least = p_few(correct, k, share), claim.n_correct / claim.n - least_share(k, share, level)
    else:
        then = claim.correct()[list(rows)]
        lost, gained, drawn = int((then & ~now).sum()), int((now & ~then).sum()), int(then.sum())
        allowed = min(claim.n_correct, int(margin * claim.n / 100))
        p = p_lost(lost, drawn, claim.n_correct, allowed)
        least = least_lost(drawn, claim.n_correct, allowed, level) / claim.n
    return Finding(
        perturbation=str(claim.perturbation),
        claimed=claim.n_correct,
        n=claim.n,
        correct=correct,
        k=k,
        lost=lost,
        gained=gained,
        test="binomial" if claim.flags is None else "hypergeometric",
        p=0.0 if record.error is not None else p,
        alpha=alpha,
        detectable=100 * least,
    )
