"""The jobs of a run, as workers do them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from rlbench.core import Perturbation, Suite
from rlbench.core.batch import BatchSize
from rlbench.core.errors import DataError
from rlbench.core.executor import Report
from rlbench.core.machine import reproducible
from rlbench.encoders.black_box.classes import Metered
from rlbench.encoders.identity import Identity
from rlbench.engine.attack.schedule import Standing
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import Result, evaluate
from rlbench.engine.block.prefetch import prefetch
from rlbench.engine.run.batching import Bundle
from rlbench.store.blocks import Block


@dataclass
class Shared:
    """What every job needs, and the benches that this process has prepared.

    Attributes:
        pairs: the suite, model name, identity and data fingerprint of every pair of the plan.
        batch_sizes: of every pair, the most examples of a forward pass.
        cache: the folder of the cache of corrupted inputs.
        benches: the last benches, by index of the pair.
        batches: what holds the batch sizes in this process, by index of the pair; they fall where memory runs out.
    """

    pairs: tuple[tuple[Suite, str, Identity, object], ...]
    batch_sizes: tuple[int, ...]
    cache: Path
    benches: dict[int, Bench] = field(default_factory=dict)
    batches: dict[int, BatchSize] = field(default_factory=dict)

    def bench(self, pair: int, device: str) -> Bench:
        """The bench of a pair. Raises: RLBenchError, also where weights or data differ from those of the plan."""
        if pair not in self.benches:
            suite, model, known, data = self.pairs[pair]
            while len(self.benches) >= 2:
                del self.benches[next(iter(self.benches))]
            batch = self.batches.setdefault(pair, BatchSize(self.batch_sizes[pair], device))
            bench = prepare(suite, model, device=device, batch_size=batch, cache=self.cache, known=known)
            if bench.data != data:
                raise DataError(f"the data of {suite.name} differ from those that the run was planned with")
            if isinstance(bench.encoder, Metered):
                bench.encoder.keep_account(self.cache.with_name("queries"))
            self.benches[pair] = bench
        return self.benches[pair]


class Done(NamedTuple):
    """The results of a job, and the batch size that its worker has come to."""

    results: list[Result]
    batch_size: int


Job = tuple[Bundle, Block | None]  # units of one pair and span, and the examples' clean block


def perform(shared: Shared, device: str, job: Job, ahead: Job | None, report: Report) -> Done:
    """Runs work units together, in this process, and meanwhile loads the inputs of the job after.

    Args:
        shared: what every job needs.
        device: the torch device.
        job: the units, and the clean block of their examples (None for the clean unit).
        ahead: the job that probably follows.
        report: gets the number of examples of every forward pass, and the standings of the cells.
    """
    units, clean = job
    unit, bench = units[0], shared.bench(units[0].pair, device)
    near = [] if ahead is None else [unit, ahead[0][0]]
    with reproducible(device), prefetch([(shared.benches[u.pair], u) for u in near if u.pair in shared.benches]):
        groups, span = [unit.group for unit in units], (unit.start, unit.stop)

        def tell(standings: Mapping[Perturbation, Standing]) -> None:
            report.tell({(unit.pair, member, span): standing for member, standing in standings.items()})

        while True:
            try:
                return Done(evaluate(bench, groups, *span, clean, report.count, tell), bench.batch.size)
            except torch.OutOfMemoryError:  # where no smaller part of the job could be done again
                pass
            bench.batch.halve()
