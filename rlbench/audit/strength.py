"""Checks that compare the attack with itself under other settings: S1, S2, S3, S5, S6."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from rlbench.audit.lab import MAIN, Lab
from rlbench.core.badges import Finding, Status

POINT = 0.01  # one percentage point
STEPS = 100  # of apgd-ce


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}%"


def s1(lab: Lab) -> Finding:
    """Compares pgd with fgsm."""
    many, one = lab.attack("pgd"), lab.attack("fgsm")
    text = f"accuracy is {_percent(many.accuracy)} under pgd, {_percent(one.accuracy)} under fgsm"
    return Finding(id="S1", status="fail" if many.accuracy > one.accuracy else "pass", said=text)


def s2(lab: Lab) -> Finding:
    """Compares apgd-ce of 100 and of 200 steps."""
    once, twice = lab.attack("apgd-ce"), lab.attack("apgd-ce", steps=2 * STEPS)
    fell = int(once.robust.sum()) - int(twice.robust.sum())
    text = f"accuracy is {_percent(once.accuracy)} after {STEPS} steps, {_percent(twice.accuracy)} after {2 * STEPS}"
    # A single example is within the attack's randomness, however large its share.
    return Finding(id="S2", status="warn" if fell >= max(2, POINT * lab.n) else "pass", said=text)


def s3(lab: Lab) -> Finding:
    """Measures how late the margins of the examples that withstand apgd-ce still fall."""
    outcome = lab.attack("apgd-ce")
    late, whole = 0.0, 0.0
    for row in outcome.robust[lab.rows].nonzero()[:, 0].tolist():
        best = outcome.trace.margins(row)[: STEPS + 1].cummin(0).values
        whole += float(best[0] - best[-1])
        late += float(best[len(best) - len(best) // 10 - 1] - best[-1])
    share = late / whole if whole > 0 else 0.0
    return Finding(
        id="S3",
        status="warn" if share > 0.05 else "pass",
        said=f"{100 * share:.2g}% of the drop in the survivors' margins is in the last tenth of the steps",
    )


def s5(lab: Lab) -> Finding:
    """Runs pgd at eps times 1/4, 1/2, 1 and 2."""
    times = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2))
    left = [lab.main_attack(factor).accuracy for factor in times]
    rises = max(larger - smaller for smaller, larger in pairwise(left))
    text = (
        f"accuracy under {MAIN[lab.knowledge][0]} at eps x 1/4, 1/2, 1, 2: {', '.join(_percent(one) for one in left)}"
    )
    return Finding(id="S5", status="fail" if rises > max(POINT, 1.5 / lab.n) else "pass", said=text)


def s6(lab: Lab) -> Finding:
    """Runs pgd with an eps that spans the whole box."""
    left, chance = lab.main_attack(1 / lab.threat.eps).accuracy, 1 / lab.bench.n_classes
    attack = MAIN[lab.knowledge][0]
    status: Status = "fail" if left > chance else "pass"
    return Finding(
        id="S6", status=status, said=f"accuracy is {_percent(left)} under {attack}; chance is {_percent(chance)}"
    )
