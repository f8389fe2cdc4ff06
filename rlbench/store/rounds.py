"""Rounds of training and testing as one: each model's examples of all rounds, one after the other.

A round has a backbone or a fine-tuning seed and test examples of its own, so that pairs of models are pairs in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from rlbench.core import Field, Perturbation, Record
from rlbench.store.flags import flags_of, pack


def pool_rounds(records: Iterable[Record]) -> list[Record]:
    """Records with those of a campaign's rounds merged, by suite, model and perturbation; others stay as they are.

    A merged record has the hashes of all of them, so that only models of the same rounds share a table.
    """
    kept, rounds = [], dict[tuple[str, int, str, Perturbation], list[Record]]()
    for record in records:
        if "round" in record.provenance:
            place = record.suite, record.suite_version, record.model, record.perturbation
            rounds.setdefault(place, []).append(record)
        else:
            kept.append(record)
    return kept + [_merge(sorted(those, key=lambda r: str(r.provenance["round"]))) for those in rounds.values()]


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
    """What all agree on; of hashes that differ, the hash; the data says which rounds."""
    found: dict[str, Field] = {}
    for name in rounds[0].provenance:
        values = [record.provenance.get(name) for record in rounds]
        if len(set(values)) == 1:
            found[name] = values[0]
        elif name in ("data", "anchors", "checkpoint", "protocol"):
            found[name] = _hash(values)
    turns = ", ".join(str(record.provenance["round"]) for record in rounds)
    return found | {"round": turns, "data": f"{found['data']} (round{'s' * (len(rounds) > 1)} {turns})"}


def _hash(values: Sequence[object]) -> str:
    return sha256("\n".join(map(str, values)).encode()).hexdigest()[:16]


def of_rounds(records: Iterable[Record]) -> list[Record]:
    """The records that a campaign's runs have."""
    return [record for record in records if "round" in record.provenance]
