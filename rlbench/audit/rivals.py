"""Checks that compare the gradient attacks with attacks that need no gradient of the encoder: S7, S8, S9."""

from __future__ import annotations

from rlbench.audit.lab import Lab
from rlbench.core.badges import Finding

QUERIES = 1000
POINTS = 20


def _compare(lab: Lab, left: int, rival: str) -> str:
    gradient = 100 * float(lab.survivors.float().mean())
    return f"accuracy is {100 * left / lab.n:.1f}% under {rival}, {gradient:.1f}% under {lab.attacks_text}"


def s7(lab: Lab) -> Finding:
    """Runs square on the examples that withstand the gradient attacks."""
    left = lab.survivors.nonzero()[:, 0]
    if not len(left):
        return Finding(id="S7", status="pass", said="no example withstands the gradient attacks")
    outcome = lab.attack("square", only=left, queries=QUERIES, rescale=True)
    broken = len(left) - int(outcome.robust.sum())
    text = outcome.error or f"square breaks {broken} of the {len(left)} examples that withstand the gradient attacks"
    return Finding(id="S7", status="fail" if outcome.error or broken > 0.002 * lab.n else "pass", said=text)


def s8(lab: Lab) -> Finding:
    """Transfers the adversarial examples that pgd makes on the sibling."""
    if lab.sibling is None:
        return Finding(id="S8", status="skip", said="the model has no undefended sibling")
    left = int(lab.attack_through(lab.sibling).sum())
    text = _compare(lab, left, "the sibling's examples")
    return Finding(id="S8", status="fail" if left < int(lab.survivors.sum()) else "pass", said=text)


def s9(lab: Lab) -> Finding:
    """Tries ten random points inside the ball and ten of its corners."""
    halves = [lab.attack("noise", points=POINTS // 2, where=where) for where in ("ball", "surface")]
    left = int((halves[0].robust & halves[1].robust).sum())
    text = _compare(lab, left, f"{POINTS} random points")
    return Finding(id="S9", status="fail" if left < int(lab.survivors.sum()) else "pass", said=text)
