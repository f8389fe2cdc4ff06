"""Checks of the attack against itself: S1, S2, S3, S5, S6."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from rlbench.audit.lab import Lab
from rlbench.core.badges import Finding, Status

POINT = 0.01
STEPS = 100  # of apgd-ce


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}%"


def s1(lab: Lab) -> Finding:
    """pgd and fgsm."""
    many, one = lab.attacked("pgd"), lab.attacked("fgsm")
    said = f"pgd leaves {_percent(many.accuracy)}, fgsm {_percent(one.accuracy)}"
    return Finding(id="S1", status="fail" if many.accuracy > one.accuracy else "pass", said=said)


def s2(lab: Lab) -> Finding:
    """apgd-ce of 100 and of 200 steps."""
    once, twice = lab.attacked("apgd-ce"), lab.attacked("apgd-ce", steps=2 * STEPS)
    fell = int(once.robust.sum()) - int(twice.robust.sum())
    said = f"{STEPS} steps leave {_percent(once.accuracy)}, {2 * STEPS} leave {_percent(twice.accuracy)}"
    # Below 200 examples one of them is more than half a point: one alone is within the attack's randomness.
    return Finding(id="S2", status="warn" if fell >= max(2, POINT * lab.n) else "pass", said=said)


def s3(lab: Lab) -> Finding:
    """The margins on apgd-ce's path, of the examples that it left."""
    outcome = lab.attacked("apgd-ce")
    late, whole = 0.0, 0.0
    for row in outcome.robust[lab.rows].nonzero()[:, 0].tolist():
        best = outcome.trace.margins(row)[: STEPS + 1].cummin(0).values
        whole += float(best[0] - best[-1])
        late += float(best[len(best) - len(best) // 10 - 1] - best[-1])
    share = late / whole if whole > 0 else 0.0
    return Finding(
        id="S3",
        status="warn" if share > 0.05 else "pass",
        said=f"{100 * share:.2g}% of the survivors' way is made in the last tenth of the steps",
    )


def s5(lab: Lab) -> Finding:
    """pgd at eps times 1/4, 1/2, 1 and 2."""
    times = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2))
    left = [lab.attacked("pgd", times=factor).accuracy for factor in times]
    rises = max(larger - smaller for smaller, larger in pairwise(left))
    said = f"eps x 1/4, 1/2, 1, 2: {', '.join(_percent(one) for one in left)}"
    return Finding(id="S5", status="fail" if rises > max(POINT, 1.5 / lab.n) else "pass", said=said)


def s6(lab: Lab) -> Finding:
    """pgd where eps is the whole box."""
    left, chance = lab.attacked("pgd", times=1 / lab.threat.eps).accuracy, 1 / lab.bench.n_classes
    status: Status = "fail" if left > chance else "pass"
    return Finding(id="S6", status=status, said=f"{_percent(left)} are left; chance is {_percent(chance)}")
