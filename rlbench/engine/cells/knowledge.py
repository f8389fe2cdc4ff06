"""The part of a suite that an encoder's knowledge allows: a black box gives scores or labels, and no gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rlbench.core import Adversarial, Clean, Composed, Perturbation, Suite, Worst, registry
from rlbench.core.errors import KnowledgeError
from rlbench.core.knowledge import Knowledge, explain_lack
from rlbench.core.threat import text_of
from rlbench.engine.cells.groups import is_aggregate, is_within


class Restricted(NamedTuple):
    """A suite with the perturbations that can run, and why each of the others can't."""

    suite: Suite
    skipped: tuple[tuple[Perturbation, str], ...] = ()


def restrict(suite: Suite, knowledge: Knowledge) -> Restricted:
    """The suite for an encoder with this knowledge, which its threat models then say; all of it for a white box.

    The attacks that remain also say their number of queries.

    Raises: KnowledgeError: the suite has attacks, and only clean inputs are left.
    """
    if knowledge == "white-box":
        return Restricted(suite)
    kept, skipped = list[Perturbation](), list[tuple[Perturbation, str]]()
    attacks = [p for p in suite.perturbations if isinstance(p, Adversarial)]
    able = [attack for attack in attacks if not _lack(attack, knowledge)]
    for p in suite.perturbations:
        reason = _explain(p, able, knowledge)
        if reason:
            skipped.append((p, reason))
        else:
            kept.append(_state(p, knowledge))
    if skipped and all(isinstance(p, Clean) for p in kept):
        raise KnowledgeError(
            f"suite {suite.name} has nothing to run but clean inputs: {skipped[0][1]}; attacks such as square need "
            "scores, rays and hopskipjump need labels"
        )
    return Restricted(replace(suite, perturbations=tuple(kept)), tuple(skipped))


def restrict_texts(suite: Suite, reason: str) -> Restricted:
    """The suite without choices of texts, where an encoder can't have them for this reason; all of it for ""."""
    if not reason:
        return Restricted(suite)
    kept = tuple(p for p in suite.perturbations if text_of(p) is None)
    skipped = tuple((p, reason) for p in suite.perturbations if text_of(p) is not None)
    return Restricted(replace(suite, perturbations=kept), skipped)


def _lack(attack: Adversarial, knowledge: Knowledge) -> str:
    return explain_lack(attack.attack, registry.make("attack", attack.attack, attack.fields), knowledge)


def _explain(p: Perturbation, able: Sequence[Adversarial], knowledge: Knowledge) -> str:
    """Why a perturbation can't run, or "". A worst case needs one of its attacks."""
    if isinstance(p, Adversarial | Composed):
        return _lack(p.adversarial if isinstance(p, Composed) else p, knowledge)
    if not isinstance(p, Worst):
        return ""
    if not is_aggregate(p):
        lacks = [_lack(attack, knowledge) for attack in p.attacks if attack.threat == p.threat]
        return lacks[0] if lacks and all(lacks) else ""
    inside = any(is_within(attack.threat, p.threat) for attack in able)
    return "" if inside else f"none of its attacks can run with {knowledge} knowledge"


def _state(p: Perturbation, knowledge: Knowledge) -> Perturbation:
    """The perturbation with the knowledge in its threat model and the queries in its attack.

    A black box answers as it is, so that no search changes its precision.
    """
    if isinstance(p, Composed):
        return replace(p, adversarial=_state_attack(p.adversarial, knowledge))
    if isinstance(p, Adversarial):
        return _state_attack(p, knowledge)
    if isinstance(p, Worst):
        attacks = tuple(_state_attack(attack, knowledge) for attack in p.attacks if not _lack(attack, knowledge))
        return replace(p, threat=replace(p.threat, knowledge=knowledge, precision="fp32"), attacks=attacks)
    return p


def _state_attack(attack: Adversarial, knowledge: Knowledge) -> Adversarial:
    method, fields = registry.make("attack", attack.attack, attack.fields), dict(attack.fields)
    if hasattr(method, "queries"):
        fields["queries"] = method.queries
    threat = replace(attack.threat, knowledge=knowledge, precision="fp32")
    return replace(attack, threat=threat, fields=tuple(sorted(fields.items())))
