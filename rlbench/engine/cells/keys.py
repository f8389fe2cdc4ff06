"""Content hashes of everything that a cell's numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from rlbench.core import Clean, Field, Perturbation, Suite, Worst, registry
from rlbench.core.sources import source_hash
from rlbench.engine.cells.groups import _group, canonical, worst_members
from rlbench.store.keys import content_hash

PROTOCOL = 1  # raise it when rlbench computes other numbers from the same inputs: no stored block is used again


def plugin(kind: registry.Kind, name: str, fields: Sequence[tuple[str, Field]]) -> Any:
    """The attack or corruption, made. Raises: UnknownName, FieldError."""
    return registry.make(kind, name, dict(fields))


def plugin_values(kind: registry.Kind, name: str, fields: Sequence[tuple[str, Field]]) -> dict[str, object]:
    """What a plugin's numbers depend on: all its fields, the `version` that it may have, and a foreign one's source."""
    made = plugin(kind, name, fields)
    values = asdict(made) if is_dataclass(made) and not isinstance(made, type) else dict(fields)
    facts = {"name": name, "values": values, "source": source_hash(type(made).__module__)}
    return facts | ({"version": made.version} if hasattr(made, "version") else {})


def protocol(suite: Suite, perturbation: Perturbation) -> str:
    """Hash of what is done to the examples, and with which constants, for any model and any data."""
    return content_hash([PROTOCOL, _protocol(suite, canonical(perturbation))])


def _protocol(suite: Suite, perturbation: Perturbation) -> dict[str, object]:
    facts: dict[str, object] = {"perturbation": str(perturbation)}
    if isinstance(perturbation, Worst):
        members = perturbation.attacks or worst_members(perturbation, suite.perturbations)
        facts["members"] = [_protocol(suite, canonical(m)) for m in members]
        return facts | ({"mode": "cascade"} if perturbation.attacks else {})
    group = _group(perturbation)
    if perturbation != Clean():
        facts["seed"] = suite.seed
    if group.corrupted:
        facts["corruption"] = plugin_values("corruption", group.corrupted.corruption, group.corrupted.fields)
    if group.attacks:
        top = group.attacks[-1]
        facts["attack"] = plugin_values("attack", top.attack, top.fields)
        facts["ladder"] = [str(a.threat) for a in group.attacks]
    return facts


def cell_key(subject: Mapping[str, object], suite: Suite, perturbation: Perturbation) -> str:
    """Hash of everything that a cell's numbers depend on but n: the encoder and task (`subject`) and the protocol."""
    return content_hash([dict(subject), protocol(suite, perturbation)])
