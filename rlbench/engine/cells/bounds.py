"""What an attack says of itself: its loss, its label, and the most passes that it takes."""

from __future__ import annotations

from rlbench.core import Perturbation, Worst
from rlbench.engine.cells.groups import Group, _group
from rlbench.engine.cells.keys import plugin


def describe_attack(perturbation: Perturbation, n_classes: int) -> dict[str, str]:
    """What the attack says of itself with this number of classes: the `loss` that it ascends, and its `label`."""
    group = Group() if isinstance(perturbation, Worst) else _group(perturbation)
    if not group.attacks:
        return {}
    attack = plugin("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    asked = {"loss": getattr(attack, "loss_used", None), "label": getattr(attack, "label", None)}
    return {name: str(ask(n_classes)) for name, ask in asked.items() if ask}


def bound_passes(perturbation: Perturbation, n_classes: int) -> tuple[int, int]:
    """Upper bound of an example's forward and backward passes on this rung: no example breaks early.

    An attack may have `passes(n_classes) -> (forwards, backwards)`; else steps x restarts (x targets for "...-t").
    """
    if isinstance(perturbation, Worst):
        own = [
            bound_passes(attack, n_classes) for attack in perturbation.attacks if attack.threat == perturbation.threat
        ]
        return sum(forwards for forwards, _ in own), sum(backwards for _, backwards in own)
    group = _group(perturbation)
    if not group.attacks:
        return 1, 0
    attack = plugin("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    ask = getattr(attack, "passes", None)
    if ask is not None:
        forwards, backwards = ask(n_classes)
    else:
        targeted = group.attacks[-1].attack.endswith("-t")
        jobs = getattr(attack, "restarts", 1) * (min(getattr(attack, "targets", 9), n_classes - 1) if targeted else 1)
        backwards = jobs * getattr(attack, "steps", 1)
        forwards = backwards + jobs + targeted
    return int(forwards) + 1 + (group.corrupted is not None), int(backwards)
