"""What an attack tells about itself: its loss, its label, and the most passes that it takes."""

from __future__ import annotations

from rlbench.attacks.adaptive import LAST
from rlbench.core import Perturbation, Worst, registry
from rlbench.engine.cells.groups import Group, group_of


def describe_attack(perturbation: Perturbation, n_classes: int) -> dict[str, str]:
    """The `loss` that the attack maximises with this number of classes, and its `label`, if it has these methods.

    A label stands for an attack on the model itself, so points from a surrogate have none.
    """
    group = Group() if isinstance(perturbation, Worst) else group_of(perturbation)
    if not group.attacks:
        return {}
    attack = registry.make("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    methods = {"loss": getattr(attack, "loss_used", None)}
    methods |= {} if group.attacks[-1].surrogate else {"label": getattr(attack, "label", None)}
    return {name: str(method(n_classes)) for name, method in methods.items() if method}


def bound_passes(perturbation: Perturbation, n_classes: int, *, usual: bool = False) -> tuple[int, int]:
    """Upper bound of an example's forward and backward passes on this rung: no example breaks early.

    An attack may have `passes(n_classes) -> (forwards, backwards)`; otherwise the bound is steps x restarts, times
    targets for an attack whose name ends in "-t".

    Args:
        perturbation: of the cell.
        n_classes: of the task.
        usual: whether to take an attack's `usual_passes(n_classes)`, if it has them, in place of the bound.
    """
    if isinstance(perturbation, Worst):
        attacks = [attack for attack in perturbation.attacks if attack.threat == perturbation.threat]
        own = [bound_passes(attack, n_classes, usual=usual) for attack in attacks]
        return sum(forwards for forwards, _ in own), sum(backwards for _, backwards in own)
    group = group_of(perturbation)
    if not group.attacks:
        return 1, 0
    attack = registry.make("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    passes = (usual and getattr(attack, "usual_passes", None)) or getattr(attack, "passes", None)
    if passes is not None:
        forwards, backwards = passes(n_classes)
    else:
        targeted = group.attacks[-1].attack.endswith("-t")
        jobs = getattr(attack, "restarts", 1) * (min(getattr(attack, "targets", 9), n_classes - 1) if targeted else 1)
        backwards = jobs * getattr(attack, "steps", 1)
        forwards = backwards + jobs + targeted
    if group.attacks[-1].threat.precision != "fp32":
        last = (LAST.usual_passes if usual else LAST.passes)(n_classes)
        # At worst, every pass in low precision is confirmed in float32.
        forwards, backwards = 2 * forwards + last[0] + 2, backwards + last[1]
    return int(forwards) + 1 + (group.corrupted is not None), int(backwards)
