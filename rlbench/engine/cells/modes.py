"""A suite with another seed, other test examples, or its attacks in another mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, cast, get_args

from rlbench.core import Adversarial, Mode, Perturbation, Suite, Worst
from rlbench.core.errors import FieldError
from rlbench.core.perturbations import is_universal
from rlbench.core.precision import Precision, check_precision
from rlbench.core.sensors import SensorTask
from rlbench.core.threat import search_in, text_of
from rlbench.engine.cells.bounds import bound_passes
from rlbench.engine.cells.groups import group_of, is_aggregate


def vary(
    suite: Suite,
    *,
    seed: int | None = None,
    series: int | None = None,
    mode: Mode = "standalone",
    precision: Precision | None = None,
) -> Suite:
    """The suite with these changes; None leaves it as it is.

    Raises: FieldError where there are no other examples, or for an unknown mode.
    """
    task = cast(Any, suite.task)
    if series is not None and isinstance(task, SensorTask):
        task = task.with_series(series)
    elif series is not None:
        if not is_dataclass(task) or "series" not in {f.name for f in fields(task)}:
            raise FieldError(f"{suite.name} has one set of test examples; series is for procedural worlds")
        task = replace(cast(Any, task), series=series)
    if mode not in get_args(Mode):
        raise FieldError(f"mode is {mode!r}; it must be one of {', '.join(get_args(Mode))}")
    if suite.sensors and mode != "standalone":
        raise FieldError(f"mode is {mode!r}; {suite.name} has several sensors, whose attacks run standalone")
    columns = in_mode(suite.perturbations, mode, len(suite.task.classes))
    if precision is not None:
        columns = tuple(search_in(p, check_precision(precision)) for p in columns)
    return replace(suite, task=task, seed=suite.seed if seed is None else seed, perturbations=columns)


def mode(perturbation: Perturbation) -> Mode:
    """The mode in which its attacks run."""
    if isinstance(perturbation, Worst) and is_aggregate(perturbation):
        return perturbation.mode
    return group_of(perturbation).mode


def in_mode(perturbations: Sequence[Perturbation], mode: Mode, n_classes: int) -> tuple[Perturbation, ...]:
    """A suite's perturbations, which are `standalone`, in another mode.

    A cascade has one column per threat model instead of those of single attacks; its attacks run in the order of eps,
    then of cost. Compositions with a corruption stay standalone.
    """
    if mode == "standalone":
        return tuple(perturbations)
    attacks = [p for p in perturbations if isinstance(p, Adversarial)]
    if mode == "descending":
        return tuple(_descending(p, attacks) for p in perturbations)

    def turn(attack: Adversarial) -> tuple[bool, Fraction, int]:
        return attack.threat.norm != "linf", attack.threat.eps, sum(bound_passes(attack, n_classes))

    chain = tuple(sorted((replace(a, ladder=()) for a in attacks), key=turn))
    rest = [p for p in perturbations if text_of(p) or not isinstance(p, Adversarial | Worst)]
    return (*rest, *(Worst(threat, chain, "cascade") for threat in dict.fromkeys(a.threat for a in chain)))


def _descending(p: Perturbation, attacks: Sequence[Adversarial]) -> Perturbation:
    if isinstance(p, Worst):
        return replace(p, mode="descending")
    if not isinstance(p, Adversarial) or is_universal(p):
        return p
    same = [a for a in attacks if replace(a, threat=p.threat, ladder=p.ladder) == p and a.threat.norm == p.threat.norm]
    larger = {a.threat.eps for a in same if a.threat.eps > p.threat.eps}
    return replace(p, descending=True, ladder=tuple(sorted(larger, reverse=True)))
