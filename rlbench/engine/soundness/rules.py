"""The cheap soundness checks, part of every run: rules on the sums that `judge.Watch` keeps.

Evidence is a mapping of SUMS to counts, one a block; `total` adds those of a cell, `provenance` makes record fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlbench.core import Field
from rlbench.core.badges import BADGES, Finding, Status, badge
from rlbench.core.knowledge import Knowledge
from rlbench.engine.soundness.watch import Sums, total


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _gradients(sums: Sums) -> Finding:
    share = _share(sums["zero_gradients"], sums["gradients"])
    status: Status = "fail" if share == 1 else "warn" if share > 0.01 else "pass"
    return Finding(id="H7", status=status, said=f"{_percent(share)} of gradients are zero")


def _check_saturation(sums: Sums) -> Finding:
    share = _share(sums["saturated"], sums["correct"])
    said = f"{_percent(share)} of correct points have no loss"
    return Finding(id="H8", status="warn" if share > 0.05 else "pass", said=said)


def _logits(sums: Sums) -> Finding:
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
    said = f"{sums['lost']} of {sums['examples']} examples were broken on the path and are not when judged"
    lost: Status = "adaptive" if sums["undefended"] else "fail"
    return Finding(id="S4", status=lost if share > 0.001 else "pass", said=said)


def _check_traits(sums: Sums) -> Finding:
    open_ = sums["undefended"] > 0
    said = "traits without an adaptive attack" if open_ else "no trait that asks for an adaptive attack"
    return Finding(id="S14", status="adaptive" if open_ else "pass", said=said)


def _company(sums: Sums) -> Finding:
    said = f"{sums['company']} of {sums['repeated']} examples get another answer in another batch"
    share = _share(sums["company"], sums["repeated"])
    return Finding(id="H4", status="fail" if share > 0.01 else "warn" if share else "pass", said=said)


def _repeated(sums: Sums) -> Finding:
    if sums["graph"]:
        return Finding(id="S10", status="fail", said="an example gets another answer when a gradient is asked for")
    said = f"{sums['random']} of {sums['repeated']} examples get another answer when asked again"
    return Finding(id="S10", status="adaptive" if sums["random"] else "pass", said=said)


def findings(sums: Sums, knowledge: Knowledge = "white-box") -> list[Finding]:
    """The cheap checks, from the sums of a watched run; some of them can't be made of a black box."""
    whole = total([sums])
    checks = (_gradients, _check_saturation, _logits, _company, _check_lost, _repeated, _check_traits)
    found = [check(whole) for check in checks]
    return found if knowledge == "white-box" else [_black_box(one, whole, knowledge) for one in found]


def _black_box(found: Finding, sums: Sums, knowledge: Knowledge) -> Finding:
    """The finding, or that the check does not apply: there are no gradients, or no scores, or nothing was repeated."""
    missing = {"H7": "gradients", "H8": "gradients"}
    missing |= {"H9": "scores"} if knowledge == "label" else {}
    missing |= dict.fromkeys(("H4", "S10"), "answers asked again") if not sums["repeated"] else {}
    if found.id not in missing:
        return found
    return Finding(id=found.id, status="not applicable", said=f"the encoder gives no {missing[found.id]}")


def provenance(sums: Sequence[Sums], knowledge: Knowledge = "white-box") -> dict[str, Field]:
    """A record's fields: the badge and the failing checks; nothing for blocks that were not watched."""
    if not any(sums):
        return {}
    found = findings(total(sums), knowledge)
    bad = [f"{finding.id}: {finding.said}" for finding in found if BADGES[finding.status] != "sound"]
    return {"soundness": badge(found)} | ({"soundness_failed": "; ".join(bad)} if bad else {})
