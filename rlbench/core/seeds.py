"""One random stream per (seed, scope, example), so that batch size, order and sharding never matter.

Streams are counter-based (Philox; Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405), keyed by a
hash, and stateless: the same call gives the same numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator that depends on the text of `parts` alone."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@contextmanager
def seed_globals(seed: int, device: torch.device) -> Iterator[None]:
    """For code of others that draws from the global generators of torch, numpy or Python: seeds and restores them.

    Args:
        seed: 0 <= seed < 2^32.
        device: where that code computes; its generator is seeded, too.
    """
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


@dataclass(frozen=True)
class ExampleStreams:
    """The streams of a batch: `seed`, a scope such as "pgd linf 4/255/restart 1", and the examples' ids."""

    seed: int
    ids: tuple[str, ...]
    scope: str = ""

    def child(self, name: str) -> ExampleStreams:
        return ExampleStreams(self.seed, self.ids, f"{self.scope}/{name}")

    def take(self, rows: Sequence[int]) -> ExampleStreams:
        return ExampleStreams(self.seed, tuple(self.ids[row] for row in rows), self.scope)

    def generators(self) -> list[np.random.Generator]:
        return [generator(self.seed, self.scope, example) for example in self.ids]

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return self._stack([2 * g.random(shape, dtype=np.float32) - 1 for g in self.generators()], shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return self._stack([g.standard_normal(shape, dtype=np.float32) for g in self.generators()], shape)

    def _stack(self, rows: list[np.ndarray], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)
