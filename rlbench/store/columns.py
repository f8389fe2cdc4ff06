"""The columns of result tables, and the order of columns and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Edited, Missing, Norm, Perturbation, Record, Worst
from rlbench.core.threat import text_of, threat_of
from rlbench.store.perturbations import is_bound


@dataclass(frozen=True)
class Mean:
    """The mean accuracy over several corruptions at one severity.

    Attributes:
        corruptions: how many.
        severity: 1..5.
    """

    corruptions: int
    severity: int

    def __str__(self) -> str:
        return f"{self.corruptions} corruptions at {self.severity}"


class Column(str):
    """The name of a column, as a string that also holds what the column shows.

    Attributes:
        of: the perturbation, or a mean over corruptions.
        protocol: the protocol's hash if a table has several protocols of the same perturbation; else "".
    """

    of: Perturbation | Mean
    protocol: str

    def __new__(cls, of: Perturbation | Mean, protocol: str = "") -> Column:
        column = super().__new__(cls, f"{of} (protocol {protocol[:8]})" if protocol else str(of))
        column.of, column.protocol = of, protocol
        return column

    def __getnewargs__(self) -> tuple[Perturbation | Mean, str]:  # type: ignore[override]
        return self.of, self.protocol

    @property
    def is_worst(self) -> bool:
        """Whether it shows a worst case over attacks on the input."""
        return isinstance(self.of, Worst) and self.of.text is None

    @property
    def is_bound(self) -> bool:
        """Whether its accuracies are only upper bounds."""
        return not isinstance(self.of, Mean) and is_bound(self.of)

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key: clean, missing sensors, texts, attacks (norm, name, eps), worst cases, corruptions, pairs."""
        return _order(self.of, self.protocol[:8])


def reading_order(record: Record) -> tuple[Any, ...]:
    """The sort key of records: suite, model, column."""
    return (
        record.suite,
        record.suite_version,
        record.model,
        _order(record.perturbation, ""),
        record.n,
        record.key,
    )


def _order(of: Perturbation | Mean, protocol: str) -> tuple[Any, ...]:
    if isinstance(of, Clean):
        return 0, protocol
    if isinstance(of, Missing):
        return 0.5, str(of), protocol
    if isinstance(of, Edited):
        return 0.6, str(of), protocol
    if isinstance(of, Corrupted | Mean):
        return 3, of.severity, str(of), protocol
    threat = threat_of(of)
    assert threat is not None  # attacks and worst cases have one
    kind = 4 if isinstance(of, Composed) or text_of(of) else 2 if isinstance(of, Worst) else 1
    return kind, get_args(Norm).index(threat.norm), describe_attack(of), is_bound(of), threat.eps, str(of), protocol


def describe_attack(p: Perturbation) -> str:
    """The attack without norm and eps: `pgd(steps=3)`, `fog 3 + pgd`, `worst`, `pgd on thermal`."""
    if isinstance(p, Composed):
        return f"{p.corrupted} + {p.adversarial.call}{p.adversarial.threat.place}"
    if isinstance(p, Adversarial):
        return f"{p.call}{p.threat.place}"
    if isinstance(p, Worst) and p.text:
        return f"worst {p.text}{p.threat.place}"
    return f"worst{p.threat.place}" if isinstance(p, Worst) else "worst"
