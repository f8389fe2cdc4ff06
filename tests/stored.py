"""Builders of blocks and records as a store has them."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from rlbench.core import Adversarial, Record, Threat
from rlbench.store.blocks import Block

KEY = "0123456789abcdef"
FACTS = {"protocol": "p", "data": "d", "anchors": "a", "seed": 0}


def block(n: int = 5, seed: int = 0) -> Block:
    g = np.random.default_rng(seed)
    whole = {name: g.integers(0, 9, n) for name in ("label", "clean", "prediction", "forwards", "backwards")}
    return Block(
        id=np.array([f"säugling/{i}" for i in range(n)], dtype=object),
        source=np.array(["a", *["b"] * (n - 1)], dtype=object),
        correct=g.random(n) > 0.5,
        margin=g.standard_normal(n).astype(np.float32),
        distance=np.where(np.arange(n) == 2, np.nan, g.random(n)),
        seconds=1.25,
        environment={"torch": "2.6", "device": "cpu"},
        **whole,
    )


def key(i: int) -> str:
    return f"{i:016x}"


def record(i: int = 0, **changes: object) -> Record:
    values = dict(suite="s", suite_version=1, task="t", modality="image", model="m:mini", backbone="mini")
    counts = dict(
        perturbation=Adversarial("pgd", Threat("linf", Fraction(i, 255))),
        n=10,
        n_correct=5,
        error=None,
        forwards=7,
        backwards=6,
    )
    facts = {**FACTS, "seconds": 1.0}
    return replace(Record(key=key(i), flags="f800", provenance=facts, **values, **counts), **changes)
