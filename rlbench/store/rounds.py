"""Pools the rounds of a campaign: concatenates each model's examples of all rounds.

A round has its own backbone or fine-tuning seed and its own test examples, so models stay paired within each round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from rlbench.core import Field, Perturbation, Record
from rlbench.core.badges import worst_badge
from rlbench.store.flags import flags_of, pack

_ROUND = ("round", "data", "protocol", "anchors", "checkpoint")  # provenance that two records of a round share


def pool_rounds(records: Iterable[Record]) -> list[Record]:
    """Merges the records of a campaign's rounds by suite, task, model and perturbation; others stay as they are.

    A merged record's hashes combine those of its rounds, so that only models with the same rounds share a table. Of two
    records of a round and the same data, the one with more examples counts, since the others are among them.
    """
    others, rounds = [], dict[tuple[str, int, str, str, Perturbation], dict[object, Record]]()
    for record in records:
        if "round" not in record.provenance:
            others.append(record)
            continue
        place = record.suite, record.suite_version, record.task, record.model, record.perturbation
        own, same = rounds.setdefault(place, {}), tuple(record.provenance.get(name) for name in _ROUND)
        own[same] = max(own.get(same, record), record, key=lambda one: one.n)
    return others + [
        _merge(sorted(group.values(), key=lambda r: str(r.provenance["round"]))) for group in rounds.values()
    ]


def _merge(rounds: Sequence[Record]) -> Record:
    failed = next((record.error for record in rounds if record.error), None)
    return replace(
        rounds[0],
        key=_hash([record.key for record in rounds]),
        n=sum(record.n for record in rounds),
        n_correct=None if failed else sum(record.n_correct or 0 for record in rounds),
        error=failed,
        forwards=sum(record.forwards for record in rounds),
        backwards=sum(record.backwards for record in rounds),
        flags=None if failed else _flags(rounds),
        provenance=_provenance(rounds),
    )


def _flags(rounds: Sequence[Record]) -> str | None:
    if any(record.flags is None for record in rounds):
        return None
    return pack(np.concatenate([flags_of(record) for record in rounds]))


def _provenance(rounds: Sequence[Record]) -> dict[str, Field]:
    """The facts that all rounds share, a hash of those hashes that differ, and the worst badge with all its reasons.

    The data names the rounds.
    """
    found: dict[str, Field] = {}
    for name in rounds[0].provenance:
        values = [record.provenance.get(name) for record in rounds]
        if len(set(values)) == 1:
            found[name] = values[0]
        elif name in ("data", "anchors", "checkpoint", "protocol"):
            found[name] = _hash(values)
    for name, join in (("soundness", worst_badge), ("soundness_failed", "; ".join)):
        if known := [str(record.provenance[name]) for record in rounds if record.provenance.get(name)]:
            found[name] = join(dict.fromkeys(known))
    names = ", ".join(str(record.provenance["round"]) for record in rounds)
    return found | {"round": names, "data": f"{found['data']} (round{'s' * (len(rounds) > 1)} {names})"}


def _hash(values: Sequence[object]) -> str:
    return sha256("\n".join(map(str, values)).encode()).hexdigest()[:16]


def of_rounds(records: Iterable[Record]) -> list[Record]:
    """The records that belong to a campaign's rounds."""
    return [record for record in records if "round" in record.provenance]
