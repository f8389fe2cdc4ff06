"""A builder of records."""

import hashlib

import numpy as np
from columns import column

from rlbench.core import Record


def key(*facts: object) -> str:
    """A key for a record: the hash of these facts."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def made(model: str, perturbation: str, correct: np.ndarray, *, suite: str = "thermal", **facts: object) -> Record:
    """A record with these flags; `facts` extend or replace its provenance."""
    return Record(
        key=key(suite, model, perturbation, len(correct), facts.get("round")),
        suite=suite,
        suite_version=1,
        task="world",
        modality="thermal",
        model=model,
        backbone="mini",
        perturbation=column(perturbation),
        n=len(correct),
        n_correct=int(correct.sum()),
        error=None,
        forwards=1,
        backwards=0,
        flags=np.packbits(correct).tobytes().hex(),
        provenance={"protocol": perturbation, "data": "d", "anchors": "a", "seed": 0, **facts},  # type: ignore[dict-item]
    )
