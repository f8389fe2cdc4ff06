"""Verifies a submission: runs a random subset of its examples again and tests its claims.

With flags, `lost` counts the examples of the subset that are claimed to be correct but are wrong. If at most `margin`
points of the claim were false, `lost` would be hypergeometric; the claim is refuted if `lost` is too large for that.
Without flags, the number of correct examples is binomial; the claim is refuted if it is too small for the claimed share
less the margin. Both tests are one-sided and exact, and Holm-adjusted over the claims. The margin allows for the few
examples that flip on another machine.
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
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.surrogates import identify_surrogates, surrogate_of
from rlbench.gate.submission import Claim, Submission
from rlbench.store.flags import flags_of
from rlbench.tasks.subset import select_examples


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """The test of one claim.

    Attributes:
        perturbation: of the claim, as text.
        claimed: examples that are claimed to be correct.
        n: examples of the claim.
        correct: correct examples of the subset.
        k: examples of the subset.
        lost: examples of the subset that are claimed to be correct but are wrong; None without flags.
        gained: examples of the subset that are claimed to be wrong but are correct; None without flags.
        test: "hypergeometric" or "binomial".
        p: Holm-adjusted.
        alpha: the claim is refuted if p is below.
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

    @property
    def refuted(self) -> bool:
        """Whether p is below alpha."""
        return self.p < self.alpha


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        submission: whose claims were tested.
        results: one per claim, in the same order.
        seed: of the draw of the subset.
        rows: the numbers of the subset's examples, sorted.
    """

    submission: Submission
    results: tuple[ClaimResult, ...]
    seed: int
    rows: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether no claim is refuted."""
        return not any(result.refuted for result in self.results)

    @property
    def detectable(self) -> float:
        """The largest `detectable` of a claim, in points."""
        return max(result.detectable for result in self.results)


def verify(
    submission: Submission,
    *,
    examples: int = 100,
    seed: int = 0,
    margin: float = 1.0,
    alpha: float = 0.05,
    model: str | None = None,
    report: Callable[[Any], None] | None = None,
    **options: Any,
) -> Verification:
    """Runs a random subset of the examples again, in a temporary store, and tests the claims.

    Args:
        submission: the claims.
        examples: size of the subset, at least 1.
        seed: of the draw of the subset.
        margin: by how many points a claim may be too high without being refuted; 0 <= margin < 100.
        alpha: the probability of refuting a true submission; 0 < alpha < 1.
        model: the model on this machine (default: the submission's name).
        report: called with a `runner.Progress`.
        options: of `planner.plan`.

    Raises:
        FieldError: a value is out of range.
        StoreError: the suite, protocol, weights, anchors or data differ from the submission's.
        RLBenchError: as `planner.plan`.
    """
    from rlbench.engine.plan.planner import plan
    from rlbench.engine.run.runner import execute

    if not 0 <= margin < 100 or not 0 < alpha < 1 or examples < 1:
        raise FieldError(
            f"margin is {margin}, alpha {alpha}, examples {examples}; "
            "margin must be at least 0 and below 100, alpha between 0 and 1, examples at least 1"
        )
    model = model or resolve_plain(submission.model, f"the submission to {submission.suite}").name
    suite = _load_suite(submission, model)
    n = min(claim.n for claim in submission.claims)
    drawn = generator("verify", seed, submission.suite, submission.model).permutation(n)[: min(examples, n)]
    rows = tuple(sorted(drawn.tolist()))
    part = replace(suite, task=select_examples(suite.task, rows), examples=len(rows))
    with TemporaryDirectory(prefix="rlbench-verify-") as folder:
        planned = plan(part, model, store=folder, **options)
        _check_subject(submission, suite, planned.pairs[0].subject)
        records = execute(planned, report or (lambda progress: None))
    return Verification(
        submission, judge_subset(submission.claims, rows, records, margin=margin, alpha=alpha), seed, rows
    )


def _load_suite(submission: Submission, model: str) -> Suite:
    """Loads the suite of the claims. Raises: StoreError if it lacks a claimed column, or a protocol differs."""
    names = {str(claim.perturbation) for claim in submission.claims}
    suites = [suite for suite in load_suites(submission.suite) if names <= {str(p) for p in suite.perturbations}]
    if not suites:
        raise StoreError(f"{submission.suite} does not have all claimed columns: {', '.join(sorted(names))}")
    if len(suites) > 1:
        tasks = ", ".join(suite.task_name for suite in suites)
        raise StoreError(f"{submission.suite} has several tasks with these columns: {tasks}; write the entry for one")
    suite = suites[0]
    if any(surrogate_of(p) for p in suite.perturbations):
        suite = identify_surrogates(prepare(suite, model))
    columns: dict[str, Perturbation] = {str(p): p for p in suite.perturbations}
    for claim in submission.claims:
        own = cells.protocol(suite, columns[str(claim.perturbation)])
        if own != claim.protocol:
            raise StoreError(
                f"{claim.perturbation} is claimed under protocol {claim.protocol}; in {suite.name} v{suite.version} "
                f"it is {own}: write the submission again, or verify it with the rlbench version that wrote it"
            )
    return suite


def _check_subject(submission: Submission, suite: Suite, subject: dict[str, object]) -> None:
    """Raises StoreError if the weights, anchors or data differ from the submission's."""
    own = {"checkpoint": subject["checkpoint"], "anchors": subject["anchors"], "data": suite.task.fingerprint()}
    for claim in submission.claims:
        claimed = {"checkpoint": submission.checkpoint, "anchors": claim.anchors, "data": claim.data}
        for name, value in claimed.items():
            if value != own[name]:
                raise StoreError(f"{claim.perturbation} is claimed with {name} {value}; here it is {own[name]}")


def judge_subset(
    claims: Sequence[Claim], rows: Sequence[int], records: Sequence[Record], *, margin: float, alpha: float
) -> tuple[ClaimResult, ...]:
    """Tests claims with the records of a subset; a cell that failed refutes its claim.

    Args:
        claims: at least one.
        rows: the numbers of the subset's examples.
        records: of the subset, one per claim.
        margin: by how many points a claim may be too high.
        alpha: the probability of refuting a true submission.

    Returns:
        One result per claim, in the same order.
    """
    by_name = {str(record.perturbation): record for record in records}
    results = [
        _test(claim, rows, by_name[str(claim.perturbation)], margin, alpha / len(claims), alpha) for claim in claims
    ]
    adjusted = holm([result.p for result in results])
    return tuple(replace(result, p=p) for result, p in zip(results, adjusted, strict=True))


def _test(claim: Claim, rows: Sequence[int], record: Record, margin: float, level: float, alpha: float) -> ClaimResult:
    """Tests one claim; `level` is alpha divided by the number of claims, `p` is not adjusted yet."""
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
    return ClaimResult(
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
