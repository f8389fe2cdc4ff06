"""One random stream per (seed, scope, example), independent of batch size, order and sharding.

Streams are counter-based (Philox; Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405), keyed by a hash, and
stateless: the same call gives the same numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock

import numpy as np
import torch
from torch import Tensor


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator that depends only on the text of `parts`."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


GLOBALS = RLock()  # held while the global generators are seeded: threads share them


@contextmanager
def seed_globals(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global generators of torch, numpy and Python for third-party code in the block, then restores them.

    Args:
        seed: 0 <= seed < 2^32.
        device: whose generator is seeded as well.
    """
    with GLOBALS, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        python, legacy = random.getstate(), np.random.get_state()
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
    """The streams of a batch.

    Attributes:
        seed: of the run.
        ids: one per example.
        scope: what draws, such as "pgd linf 4/255/restart 1".
    """

    seed: int
    ids: tuple[str, ...]
    scope: str = ""

    def child(self, name: str) -> ExampleStreams:
        """Independent streams for a part of the scope."""
        return ExampleStreams(self.seed, self.ids, f"{self.scope}/{name}")

    def take(self, rows: Sequence[int]) -> ExampleStreams:
        """The streams of these rows of the batch."""
        return ExampleStreams(self.seed, tuple(self.ids[row] for row in rows), self.scope)

    def generators(self) -> list[np.random.Generator]:
        """One numpy generator per example."""
        return [generator(self.seed, self.scope, example) for example in self.ids]

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, uniform in [-1, 1)."""
        return self._stack([2 * g.random(shape, dtype=np.float32) - 1 for g in self.generators()], shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, standard normal."""
        return self._stack([g.standard_normal(shape, dtype=np.float32) for g in self.generators()], shape)

    def _stack(self, rows: list[np.ndarray], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)
