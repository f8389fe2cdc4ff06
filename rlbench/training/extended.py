"""Terms that a recipe adds to any objective; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rlbench.core import registry
from rlbench.core.errors import FieldError

if TYPE_CHECKING:
    from torch import Tensor

    from rlbench.training.types import Batch, Need, Objective


@dataclass(frozen=True)
class Extended:
    """An objective with further terms; the adversary raises the objective alone.

    Attributes:
        base: the objective.
        terms: weights and the objectives whose losses are added.
    """

    base: Objective
    terms: tuple[tuple[float, Objective], ...]

    @property
    def needs(self) -> frozenset[Need]:
        return self.base.needs.union(*(term.needs for _, term in self.terms))

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """The objective's loss + sum of weight * loss of a term."""
        total = self.base.loss(f, f_adv, batch)
        for weight, term in self.terms:
            total = total + weight * term.loss(f, f_adv, batch)
        return total

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """The objective's own."""
        return self.base.adversary_loss(f_adv, f, batch)


def extend(base: Objective, extras: Mapping[str, object]) -> Objective:
    """Adds terms to an objective.

    Args:
        base: the objective.
        extras: weights by the name of an objective; a weight of 0 adds nothing.

    Raises:
        UnknownName: There is no objective of a name.
        FieldError: A weight is not a number of at least 0, or the terms need an adversary that the objective lacks.
    """
    terms = []
    for name, weight in extras.items():
        term = cast("Objective", registry.make("objective", name))
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise FieldError(f"recipe: extras.{name} is {weight!r}; it is a weight, such as 0.5, not negative")
        if weight:
            terms.append((float(weight), term))
    if not terms:
        return base
    found = Extended(base, tuple(terms))
    if "f_adv" in found.needs and "f_adv" not in base.needs:
        raise FieldError("recipe: extras need adversarial examples, and the objective has no adversary; leave them out")
    return found
