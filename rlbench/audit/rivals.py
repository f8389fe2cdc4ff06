"""Checks of the gradient attacks against other ones, which need no gradient of the encoder: S7, S8, S9."""

from __future__ import annotations

from rlbench.audit.lab import Lab
from rlbench.core.badges import Finding

QUERIES = 1000
POINTS = 20


def _counts(lab: Lab, left: int) -> str:
    return f"{100 * left / lab.n:.1f}%; the gradient attacks leave {100 * float(lab.left.float().mean()):.1f}%"


def s7(lab: Lab) -> Finding:
    """Square on what the gradient attacks left."""
    left = lab.left.nonzero()[:, 0]
    if not len(left):
        return Finding(id="S7", status="pass", said="the gradient attacks leave nothing")
    outcome = lab.attacked("square", only=left, queries=QUERIES, rescale=True)
    broken = len(left) - int(outcome.robust.sum())
    said = outcome.error or f"square breaks {broken} of the {len(left)} that the gradient attacks left"
    return Finding(id="S7", status="fail" if outcome.error or broken > 0.002 * lab.n else "pass", said=said)


def s8(lab: Lab) -> Finding:
    """Examples that pgd makes on the sibling."""
    if lab.sibling is None:
        return Finding(id="S8", status="skip", said="there is no undefended sibling")
    left = int(lab.through(lab.sibling).sum())
    said = f"the sibling's examples leave {_counts(lab, left)}"
    return Finding(id="S8", status="fail" if left < int(lab.left.sum()) else "pass", said=said)


def s9(lab: Lab) -> Finding:
    """Ten random points of the ball and ten of its corners."""
    halves = [lab.attacked("noise", points=POINTS // 2, where=where) for where in ("ball", "surface")]
    left = int((halves[0].robust & halves[1].robust).sum())
    said = f"{POINTS} random points leave {_counts(lab, left)}"
    return Finding(id="S9", status="fail" if left < int(lab.left.sum()) else "pass", said=said)
