"""Runs a plan, and saves after every block.

Numbers depend only on the seed, the examples and the encoder: neither the number of processes nor an interruption
changes them. Records are computed from the blocks in the store alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rlbench.core import Clean, Mode, Perturbation, Record, Suite
from rlbench.core.errors import StoreError
from rlbench.core.machine import reproducible
from rlbench.encoders.black_box.classes import Metered
from rlbench.encoders.identity import Identity
from rlbench.engine import cells
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import Failure, OnPass, Result, evaluate
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan.planner import Pair, Plan, PlannedCell, Unit, plan
from rlbench.engine.run.batching import Bundle, bundle_units
from rlbench.engine.run.record import make_record, members
from rlbench.engine.run.workers import PERIOD, WorkerPool
from rlbench.store.blocks import Block
from rlbench.store.keys import record_key

__all__ = ["Plan", "PlannedCell", "Progress", "execute", "plan", "run"]
Span = tuple[int, int]


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        what: the cells that are being computed.
        done: forward passes of this run.
        total: upper bound of them, which falls as examples break early.
        rate: passes per second; 0 when not known yet.
        seconds: since the first pass.
        left: upper bound of the remaining seconds at this rate; None when not known yet.
    """

    what: str
    done: int
    total: int
    rate: float
    seconds: float
    left: float | None


@dataclass
class _Shared:
    """What every job needs, and the benches that this process has prepared.

    Attributes:
        pairs: the suite, model name and identity of every pair of the plan.
        device: the torch device.
        batch_size: the most examples of a forward pass.
        cache: the folder of the cache of corrupted inputs.
        benches: the last benches, by index of the pair.
    """

    pairs: tuple[tuple[Suite, str, Identity], ...]
    device: str
    batch_size: int
    cache: Path
    benches: dict[int, Bench] = field(default_factory=dict)


Job = tuple[Bundle, Block | None]  # units of one pair and span, and the examples' clean block


def perform(shared: _Shared, job: Job, on_pass: OnPass) -> list[Result]:
    """Runs work units together, in this process.

    Args:
        shared: what every job needs.
        job: the units, and the clean block of their examples (None for the clean unit).
        on_pass: called with the number of examples of every forward pass.
    """
    units, clean = job
    unit = units[0]
    if unit.pair not in shared.benches:
        suite, model, known = shared.pairs[unit.pair]
        while len(shared.benches) >= 2:
            del shared.benches[next(iter(shared.benches))]
        shared.benches[unit.pair] = bench = prepare(
            suite, model, device=shared.device, batch_size=shared.batch_size, cache=shared.cache, known=known
        )
        if isinstance(bench.encoder, Metered):
            bench.encoder.keep_account(shared.cache.with_name("queries"))
    with reproducible(shared.device):
        groups = [unit.group for unit in units]
        return evaluate(shared.benches[unit.pair], groups, unit.start, unit.stop, clean, on_pass)


class _Run:
    """The state of `execute`."""

    def __init__(self, plan: Plan, report: Callable[[Progress], None]) -> None:
        self.plan, self.report = plan, report
        self.begun: float | None = None
        self.done = 0
        self.expected = {unit: unit.passes for unit in plan.units}
        self.total = plan.passes
        self.failures: dict[tuple[int, Perturbation], dict[Span, str]] = {}
        self.left: dict[tuple[int, Perturbation], set[Span]] = {
            (i, p): set() for i, pair in enumerate(plan.pairs) for p in pair.keys
        }
        for unit in plan.units:
            for member in unit.group.members:
                self.left[unit.pair, member].add((unit.start, unit.stop))
        self.records: dict[tuple[int, Perturbation], Record] = {}

    def go(self) -> list[Record]:
        self._record_finished()
        pairs = tuple((p.suite, p.model, p.identity) for p in self.plan.pairs)
        shared = _Shared(pairs, self.plan.device, self.plan.batch_size, self.plan.store.inputs)
        with WorkerPool(perform, shared, self.plan.workers, self._tick) as pool:
            self.pool = pool
            for jobs in self._phases():
                for (units, _), results in pool.run(jobs):
                    for unit in units:
                        self._save(unit, [results.pop(0) for _ in unit.group.members])
        self.total = self.done
        self._tick(0)
        order = [(i, cells.canonical(p)) for i, pair in enumerate(self.plan.pairs) for p in pair.suite.perturbations]
        return [self.records[place] for place in order]

    def _phases(self) -> Iterator[list[Job]]:
        """The clean blocks, from which others start; then the most expensive blocks first, to balance the workers."""
        yield [((unit,), None) for unit in self.plan.units if unit.group == Group()]
        attacks = [unit for unit in self.plan.units if unit.group != Group() and not self._failed_clean(unit)]
        clean = {(u.pair, u.start): self._block(u.pair, Clean(), (u.start, u.stop)) for u in attacks}
        for unit in attacks:
            share = 1.0 if unit.group.corrupted else float(clean[unit.pair, unit.start].correct.mean())
            self.expected[unit] = int(unit.passes * share)
            self.total += self.expected[unit] - unit.passes
        found = bundle_units(attacks, self.expected, self.plan.workers)
        yield [(bundle, clean[bundle[0].pair, bundle[0].start]) for bundle in found]

    def _failed_clean(self, unit: Unit) -> bool:
        """Whether the encoder gave no answer for the unit's clean inputs; then all its cells fail."""
        reason = self.failures.get((unit.pair, Clean()), {}).get((unit.start, unit.stop))
        if reason is not None:
            self._save(unit, [Failure(reason)] * len(unit.group.members))
        return reason is not None

    def _save(self, unit: Unit, results: list[Result]) -> None:
        span, pair = (unit.start, unit.stop), self.plan.pairs[unit.pair]
        spent = sum(int(result.forwards.sum()) for result in results if isinstance(result, Block))
        self.total += spent - self.expected[unit]
        for member, result in zip(unit.group.members, results, strict=True):
            missing = self.left[unit.pair, member]
            if isinstance(result, Failure):
                self.failures.setdefault((unit.pair, member), {})[span] = result.reason
            else:
                self.plan.store.save(pair.keys[member], *span, result)
            missing.discard(span)
        self._record_finished()

    def _record_finished(self) -> None:
        """Records every cell with all its blocks; a worst case follows the cells that it is taken over."""
        for i, pair in enumerate(self.plan.pairs):
            for p in pair.suite.perturbations:
                place = i, cells.canonical(p)
                if place not in self.records and not any(self.left[i, m] for m in members(pair, place[1])):
                    self.records[place] = self._record(i, pair, place[1])
                    self.plan.store.append(self.records[place])

    def _block(self, pair: int, p: Perturbation, span: Span) -> Block:
        key = self.plan.pairs[pair].keys[p]
        block = self.plan.store.block(key, *span)
        if block is None:
            raise StoreError(f"block {key}/{span[0]}-{span[1]} was removed during the run; run again")
        return block

    def _record(self, index: int, pair: Pair, p: Perturbation) -> Record:
        found = members(pair, p)
        failed = [(m, self.failures[index, m]) for m in found if (index, m) in self.failures]
        error = next((f"{m}: {spans[min(spans)]}" if m != p else spans[min(spans)] for m, spans in failed), None)
        return make_record(pair, p, [[self._whole(index, m, span) for span in pair.spans] for m in found], error)

    def _whole(self, pair: int, p: Perturbation, span: Span) -> Block | None:
        failed = span in self.failures.get((pair, p), {})
        return None if failed else self._block(pair, p, span)

    def _tick(self, passes: int) -> None:
        if self.begun is None and passes:
            self.begun = perf_counter() - PERIOD
        self.done = min(self.done + passes, self.total)
        seconds = 0.0 if self.begun is None else perf_counter() - self.begun
        rate = self.done / seconds if seconds else 0.0
        left = (self.total - self.done) / rate if rate else None
        what = ", ".join(dict.fromkeys(self._describe(units) for units, _ in self.pool.active))
        self.report(Progress(what, self.done, self.total, rate, seconds, left))

    def _describe(self, units: Sequence[Unit]) -> str:
        pair, last = self.plan.pairs[units[0].pair], units[-1].group.members[-1]
        return f"{pair.suite.name} {pair.model} {last if len(units) == 1 else f'{len(units)} attacks'}"


def _ignore(progress: Progress) -> None:
    """No report."""


def execute(plan: Plan, report: Callable[[Progress], None] = _ignore) -> list[Record]:
    """Computes the missing blocks of the plan, saving each one at once, and records the cells.

    An attack or corruption that crashes or breaks its contract fails its cell: a record with an `error` and no counts.

    Finished blocks survive an error or Ctrl-C: making and executing the same plan again resumes the run.

    Args:
        plan: the plan.
        report: called with the progress, at least twice a second.

    Returns:
        A record for every cell of the plan that is not skipped, in the plan's order.

    Raises:
        StoreError: the store cannot be written.
        RLBenchError: a worker was killed.
    """
    plan.store.prepare(fresh=plan.fresh)
    if plan.fresh:
        keys = [key for pair in plan.pairs for key in pair.keys.values()]
        plan.store.forget(keys, [record_key(k, pair.n) for pair in plan.pairs for k in pair.keys.values()])
    return _Run(plan, report).go()


def run(
    suite: str | Suite | Sequence[str | Suite],
    model: str | Sequence[str],
    *,
    examples: int | None = None,
    seed: int | None = None,
    series: int | None = None,
    mode: Mode = "standalone",
    out: str | os.PathLike[str] = "rlbench-results",
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    fresh: bool = False,
) -> list[Record]:
    """Evaluates models on suites; blocks in the store are not computed again.

    Args:
        suite: a name, a YAML file's path or a Suite, or several.
        model: a name such as "rlbind" or "fare:mini", or a trained checkpoint's folder, or several.
        examples: number of examples of each task (default: the suite's).
        seed: the seed of attacks and corruptions (default: the suite's).
        series: another set of a procedural world's test examples (default: the suite's, which is 0).
        mode: "standalone" (each column is one attack alone), "cascade" (only the exact worst case of all attacks of a
            threat model, at the lowest cost) or "descending" (what survives a larger eps is not attacked at a smaller
            one).
        out: the store's folder.
        batch_size: the most examples of a forward pass.
        workers: processes (default: one per processor, one on a GPU); they do not change the numbers.
        device: "auto", "cpu" or "cuda".
        fresh: start over, for the cells of this run.

    Returns:
        One record per cell.

    Raises: RLBenchError.
    """
    missing = plan(
        suite,
        model,
        store=out,
        examples=examples,
        seed=seed,
        series=series,
        mode=mode,
        batch_size=batch_size,
        workers=workers,
        device=device,
        fresh=fresh,
    )
    return execute(missing)
