"""The rules of the cheap soundness checks: from the counts of a watched run (`watch.SUMS`) to findings and a badge.

Each block stores its counts as `evidence`. `watch.total` adds up those of a cell, and `provenance` makes record fields
of them. `core.badges` describes the checks by their ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlbench.core import Field
from rlbench.core.badges import BADGES, Finding, Status, badge
from rlbench.core.knowledge import Knowledge
from rlbench.engine.soundness.watch import Sums, total

FEW, ENOUGH = 8, 32  # examples for a comparison with chance, and for a test: with fewer, weak encoders seldom pass it
ALPHA = 0.05  # the test's level


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _check_gradients(sums: Sums) -> Finding:
    share = _share(sums["zero_gradients"], sums["gradients"])
    blind = _share(sums["blind_gradients"], sums["gradients"])
    if blind > max(share, 0.01):
        return Finding(id="H7", status="warn", said=f"{_percent(blind)} of gradients are zero on an attacked sensor")
    status: Status = "fail" if share == 1 else "warn" if share > 0.01 else "pass"
    return Finding(id="H7", status=status, said=f"{_percent(share)} of gradients are zero")


def _check_saturation(sums: Sums) -> Finding:
    share = _share(sums["saturated"], sums["correct"])
    said = f"{_percent(share)} of correct points have a loss of 0"
    return Finding(id="H8", status="warn" if share > 0.05 else "pass", said=said)


def _check_logits(sums: Sums) -> Finding:
    if sums["not_finite"]:
        share = _share(sums["not_finite"], sums["passes"])
        return Finding(id="H9", status="fail", said=f"{_percent(share)} of outputs are not finite")
    shares = {name: _share(sums[name], sums["passes"]) for name in ("probabilities", "constant")}
    name = max(shares, key=lambda key: shares[key])
    words = {"probabilities": "are probabilities", "constant": "have all values equal"}
    said = f"{_percent(shares[name])} of outputs {words[name]}"
    return Finding(id="H9", status="warn" if shares[name] > 0.01 else "pass", said=said)


def _check_lost(sums: Sums) -> Finding:
    share = _share(sums["lost"], sums["examples"])
    said = f"{sums['lost']} of {sums['examples']} examples were broken during the attack but not when judged"
    lost: Status = "adaptive" if sums["undefended"] else "fail"
    return Finding(id="S4", status=lost if share > 0.001 else "pass", said=said)


def _check_traits(sums: Sums) -> Finding:
    open_ = sums["undefended"] > 0
    said = "traits without an adaptive attack" if open_ else "no trait that needs an adaptive attack"
    return Finding(id="S14", status="adaptive" if open_ else "pass", said=said)


def _check_company(sums: Sums) -> Finding:
    said = f"{sums['company']} of {sums['repeated']} examples get other logits in another batch"
    share = _share(sums["company"], sums["repeated"])
    return Finding(id="H4", status="fail" if share > 0.01 else "warn" if share else "pass", said=said)


def _check_repeats(sums: Sums) -> Finding:
    if sums["graph"]:
        return Finding(id="S10", status="fail", said="an example gets other logits with a gradient than without")
    said = f"{sums['random']} of {sums['repeated']} examples get other logits when classified again"
    return Finding(id="S10", status="adaptive" if sums["random"] else "pass", said=said)


def check_chance(right: int, labels: Sequence[int]) -> Finding:
    """H11, by a one-sided exact binomial test; with few examples, by the shares alone.

    Args:
        right: the number of examples that are correct without an attack.
        labels: the label of each example.
    """
    from scipy.special import bdtrc

    n, largest = len(labels), max(Counter(labels).values(), default=0)
    said = (
        f"clean accuracy is {_percent(_share(right, n))}, the largest class has {_percent(_share(largest, n))} of {n}"
    )
    if n < FEW or largest == n:
        return Finding(id="H11", status="skip", said=f"{said} examples: {'too few' if n < FEW else 'one class'}")
    p = float(bdtrc(right - 1, n, largest / n)) if right else 1.0
    if p < ALPHA or (n < ENOUGH and right > largest):
        return Finding(id="H11", status="pass", said=f"{said} examples")
    return Finding(id="H11", status="warn", said=f"{said} examples: not above chance (p = {p:.2g})")


def findings(sums: Sums, knowledge: Knowledge = "white-box") -> list[Finding]:
    """Applies every cheap check.

    Args:
        sums: the counts of a watched run by the names of `watch.SUMS`; a missing name counts as 0.
        knowledge: of the encoder; some checks are not applicable to a black box.
    """
    whole = total([sums])
    checks = (
        _check_gradients,
        _check_saturation,
        _check_logits,
        _check_company,
        _check_lost,
        _check_repeats,
        _check_traits,
    )
    found = [check(whole) for check in checks]
    return found if knowledge == "white-box" else [_limit(one, whole, knowledge) for one in found]


def _limit(finding: Finding, sums: Sums, knowledge: Knowledge) -> Finding:
    """The finding, or "not applicable" if the check needs what a black box does not give."""
    missing = dict.fromkeys(("H7", "H8"), "the encoder gives no gradients")
    missing |= {"H9": "the encoder gives no scores"} if knowledge == "label" else {}
    missing |= dict.fromkeys(("H4", "S10"), "outputs are cached") if not sums["repeated"] else {}
    if finding.id not in missing:
        return finding
    return Finding(id=finding.id, status="not applicable", said=missing[finding.id])


def provenance(
    sums: Sequence[Sums], knowledge: Knowledge = "white-box", others: Sequence[Finding] = ()
) -> dict[str, Field]:
    """Makes a record's fields `soundness` (the badge) and `soundness_failed` (the checks that are not sound).

    Args:
        sums: the counts of each block.
        knowledge: of the encoder.
        others: findings that are not made from counts.

    Returns:
        Both fields, the second only if a check is not sound; nothing if no block was watched.
    """
    if not any(sums):
        return {}
    found = [*findings(total(sums), knowledge), *others]
    bad = [f"{finding.id}: {finding.said}" for finding in found if BADGES[finding.status] != "sound"]
    return {"soundness": badge(found)} | ({"soundness_failed": "; ".join(bad)} if bad else {})
