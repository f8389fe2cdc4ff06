"""The part of a suite that can run on an encoder: a black box gives scores or labels, and no gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Perturbation, Suite, Threat, Worst, registry
from rlbench.core.errors import KnowledgeError
from rlbench.core.knowledge import Knowledge, explain_lack
from rlbench.core.threat import text_of
from rlbench.engine.cells.groups import is_aggregate, is_within


class Restricted(NamedTuple):
    """A suite with the perturbations that can run, and why each of the others can't."""

    suite: Suite
    skipped: tuple[tuple[Perturbation, str], ...] = ()


Lack = Callable[[Adversarial], str]  # why an attack can't run, or ""


def lack_nothing(attack: Adversarial) -> str:
    """No attack lacks anything."""
    return ""


def restrict(suite: Suite, knowledge: Knowledge, lack: Lack = lack_nothing) -> Restricted:
    """The suite for an encoder with this knowledge, which its threat models then say; all of it for a white box.

    The attacks that remain also say their number of queries.

    Args:
        suite: the suite.
        knowledge: what the encoder gives.
        lack: why else an attack can't run, or "".

    Raises: KnowledgeError: the suite has attacks, and only clean inputs are left.
    """

    def explain(attack: Adversarial) -> str:
        return lack(attack) or _lack(attack, knowledge)

    found = [(p, _explain(p, suite, explain, knowledge)) for p in suite.perturbations]
    skipped = tuple((p, reason) for p, reason in found if reason)
    kept = tuple(_state(p, explain, knowledge) for p, reason in found if not reason)
    if skipped and all(isinstance(p, Clean) for p in kept):
        able = "; attacks such as square need scores, rays and hopskipjump need labels"
        raise KnowledgeError(
            f"suite {suite.name} has nothing to run but clean inputs: {skipped[0][1]}"
            f"{able if knowledge != 'white-box' else ''}"
        )
    return Restricted(replace(suite, perturbations=kept), skipped)


def restrict_texts(suite: Suite, reason: str) -> Restricted:
    """The suite without choices of texts, where an encoder can't have them for this reason; all of it for ""."""
    if not reason:
        return Restricted(suite)
    kept = tuple(p for p in suite.perturbations if text_of(p) is None)
    skipped = tuple((p, reason) for p in suite.perturbations if text_of(p) is not None)
    return Restricted(replace(suite, perturbations=kept), skipped)


def restrict_corruptions(suite: Suite, misfit: Callable[[Corrupted], str]) -> Restricted:
    """The suite without corruptions, alone or before attacks, that can't act on an encoder's inputs.

    Args:
        suite: the suite.
        misfit: why a corruption can't, or "".

    Raises: KnowledgeError: only clean inputs are left.
    """
    of = {p: p.corrupted if isinstance(p, Composed) else p for p in suite.perturbations}
    reasons = {p: misfit(one) if isinstance(one, Corrupted) else "" for p, one in of.items()}
    skipped = tuple((p, reason) for p, reason in reasons.items() if reason)
    kept = tuple(p for p in suite.perturbations if not reasons[p])
    if skipped and all(isinstance(p, Clean) for p in kept):
        raise KnowledgeError(f"suite {suite.name} has nothing to run but clean inputs: {skipped[0][1]}")
    return Restricted(replace(suite, perturbations=kept), skipped)


def _lack(attack: Adversarial, knowledge: Knowledge) -> str:
    """Why an attack can't run with this knowledge; one on a surrogate asks nothing of the encoder."""
    method = registry.make("attack", attack.attack, attack.fields)
    return "" if attack.surrogate else explain_lack(attack.attack, method, knowledge)


def _explain(p: Perturbation, suite: Suite, explain: Lack, knowledge: Knowledge) -> str:
    """Why a perturbation can't run, or "". A worst case needs one of its attacks."""
    if isinstance(p, Adversarial | Composed):
        return explain(p.adversarial if isinstance(p, Composed) else p)
    if not isinstance(p, Worst):
        return ""
    if not is_aggregate(p):
        lacks = [explain(attack) for attack in p.attacks if attack.threat == p.threat]
        return lacks[0] if lacks and all(lacks) else ""
    inside = [a for a in suite.perturbations if isinstance(a, Adversarial) and is_within(a.threat, p.threat)]
    white = knowledge == "white-box"
    if not all(map(explain, inside)) or (white and not inside):
        return ""
    return "none of its attacks can run" + ("" if white else f" with {knowledge} knowledge")


def _state(p: Perturbation, explain: Lack, knowledge: Knowledge) -> Perturbation:
    """The perturbation with the knowledge in its threat model and the queries in its attack.

    A black box answers as it is, so that no search changes its precision.
    """
    if isinstance(p, Composed):
        return replace(p, adversarial=_state_attack(p.adversarial, knowledge))
    if isinstance(p, Adversarial):
        return _state_attack(p, knowledge)
    if isinstance(p, Worst):
        attacks = tuple(_state_attack(attack, knowledge) for attack in p.attacks if not explain(attack))
        return replace(p, threat=_state_threat(p.threat, knowledge), attacks=attacks)
    return p


def _state_threat(threat: Threat, knowledge: Knowledge) -> Threat:
    return threat if knowledge == "white-box" else replace(threat, knowledge=knowledge, precision="fp32")


def _state_attack(attack: Adversarial, knowledge: Knowledge) -> Adversarial:
    method, fields = registry.make("attack", attack.attack, attack.fields), dict(attack.fields)
    if hasattr(method, "queries") and not attack.surrogate and knowledge != "white-box":
        fields["queries"] = method.queries
    return replace(attack, threat=_state_threat(attack.threat, knowledge), fields=tuple(sorted(fields.items())))
