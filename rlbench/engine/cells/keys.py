"""Content hashes of everything that a cell's numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass

from rlbench.attacks.text.edits import ALPHABET, LIMIT
from rlbench.core import Clean, Corrupted, Edited, Field, Missing, Perturbation, Suite, Worst, registry
from rlbench.core.sources import source_hash
from rlbench.engine.cells.groups import canonical, group_of, is_aggregate, members_of
from rlbench.store.keys import content_hash
from rlbench.tasks.words import list_class_words

PROTOCOL = 1  # raise it when rlbench computes other numbers from the same inputs, so that stored blocks are not reused


SHARED = 256  # the most validation examples that choose the names of typo-shared


def plugin_values(kind: registry.Kind, name: str, fields: Sequence[tuple[str, Field]]) -> dict[str, object]:
    """What a plugin's numbers depend on: its fields, its `version` if any, and the source of a third-party plugin."""
    plugin = registry.make(kind, name, fields)
    values = asdict(plugin) if is_dataclass(plugin) and not isinstance(plugin, type) else dict(fields)
    facts = {"name": name, "values": values, "source": source_hash(type(plugin).__module__)}
    return facts | ({"version": plugin.version} if hasattr(plugin, "version") else {})


def protocol(suite: Suite, perturbation: Perturbation) -> str:
    """Hash of what is done to the examples, constants included, for any model and any data."""
    return content_hash([PROTOCOL, _protocol(suite, canonical(perturbation))])


def _protocol(suite: Suite, perturbation: Perturbation) -> dict[str, object]:
    facts: dict[str, object] = {"perturbation": str(perturbation)}
    if isinstance(perturbation, Worst) and perturbation.attacks:
        facts["members"] = [_protocol(suite, canonical(m)) for m in perturbation.attacks]
        return facts | {"mode": "cascade"}
    if is_aggregate(perturbation):
        facts["members"] = [_protocol(suite, m) for m in members_of(perturbation, suite.perturbations)]
        return facts
    group = group_of(perturbation)
    if perturbation != Clean():
        facts["seed"] = suite.seed
    if isinstance(group.corrupted, Missing):
        facts["missing"] = list(group.corrupted.sensors)
    elif isinstance(group.corrupted, Edited):
        facts["text"] = _text_facts(group.corrupted)
    elif isinstance(group.corrupted, Corrupted):
        facts["corruption"] = plugin_values("corruption", group.corrupted.corruption, group.corrupted.fields)
    if group.attacks:
        top = group.attacks[-1]
        facts["attack"] = plugin_values("attack", top.attack, top.fields)
        facts["ladder"] = [str(a.threat) for a in group.attacks]
        facts |= {"surrogate": top.surrogate.identity} if top.surrogate else {}
        if top.threat.precision != "fp32":
            facts["last search"] = plugin_values("attack", "adaptive", ())
    return facts


def _text_facts(edited: Edited) -> dict[str, object]:
    """What a choice of texts depends on besides the task's own."""
    words = content_hash(sorted(list_class_words()))
    names = {"alphabet": ALPHABET, "limit": LIMIT, "dictionary": words} if edited.edits else {}
    shared = {"examples": SHARED} if edited.text == "typo-shared" else {}
    return {"text": edited.text, "edits": edited.edits} | names | shared


def cell_key(subject: Mapping[str, object], suite: Suite, perturbation: Perturbation) -> str:
    """Hash of all that a cell's numbers depend on except n: the encoder and task (`subject`) and the protocol."""
    return content_hash([dict(subject), protocol(suite, perturbation)])
