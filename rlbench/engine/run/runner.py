"""Runs a plan, and saves after every block.

Numbers depend only on the seed, the examples and the encoder: neither the number of processes nor an interruption
changes them. Records are computed from the blocks in the store alone.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Literal

from rlbench.core import Clean, Mode, Perturbation, Record, Suite
from rlbench.core.errors import StoreError
from rlbench.core.executor import PERIOD, Lost, Pool, Report, Work
from rlbench.core.files import LOG
from rlbench.core.precision import Precision
from rlbench.engine import cells
from rlbench.engine.attack.elsewhere import passes_elsewhere
from rlbench.engine.block.evaluate import Failure, Result
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan.planner import Pair, Plan, PlannedCell, Unit, plan
from rlbench.engine.run.batching import bundle_units
from rlbench.engine.run.jobs import Done, Job, Shared, perform
from rlbench.engine.run.progress import CellProgress, News, Place, Progress, Span, Standings
from rlbench.engine.run.record import fill, members, outline
from rlbench.store.blocks import Block
from rlbench.store.keys import record_key
from rlbench.store.shards import ShardFile

__all__ = ["Plan", "PlannedCell", "Progress", "execute", "plan", "run"]


class _Run:
    """The state of `execute`."""

    def __init__(self, plan: Plan, report: Callable[[Progress], None]) -> None:
        self.plan, self.report = plan, report
        self.begun: float | None = None
        self.done = 0
        self.most = {unit: unit.passes for unit in plan.units}
        self.usual = {unit: unit.usual for unit in plan.units}
        self.total, self.usual_total = plan.passes, sum(self.usual.values())
        self.failures: dict[Place, dict[Span, str]] = {}
        self.left: dict[Place, set[Span]] = {(i, p): set() for i, pair in enumerate(plan.pairs) for p in pair.keys}
        for unit in (*plan.units, *plan.elsewhere):
            for member in unit.group.members:
                self.left[unit.pair, member].add((unit.start, unit.stop))
        self.records: dict[Place, Record] = {}
        self.standings = Standings()
        self.smallest: dict[int, int] = {}  # batch size that a worker came to, by index of the pair

    def go(self) -> list[Record]:
        self._record_finished()
        self._resume()
        plan = self.plan
        pairs = tuple((p.suite, p.model, p.identity, p.subject["data"]) for p in plan.pairs)
        shared = Shared(pairs, tuple(pair.batch_size for pair in plan.pairs), plan.store.inputs)
        work = Work(perform=perform, shared=shared, devices=plan.devices, tick=self._tick)
        with plan.executor.open(work) as pool:
            self.pool: Pool[Job, Done] = pool
            self._begin_here(shared)
            for jobs in self._phases():
                for (units, _), done in pool.run(jobs):
                    found = iter(_fail(units, done.reason) if isinstance(done, Lost) else self._take(units, done))
                    for unit in units:
                        self._save(unit, [next(found) for _ in unit.group.members])
        self.total = self.usual_total = self.done
        self._tick(0, {})
        self._say_smaller_batches()
        order = [(i, cells.canonical(p)) for i, pair in enumerate(self.plan.pairs) for p in pair.suite.perturbations]
        return [self.records[place] for place in order if place in self.records]

    def _begin_here(self, shared: Shared) -> None:
        """Computes the first clean block in this process, which has loaded the encoder, while the workers start."""
        unit = next((unit for unit in self.plan.units if unit.group == Group()), None)
        if unit is not None and self.plan.workers > 1 and self.plan.executor.here:
            report = Report(self._tick)
            results = perform(replace(shared, benches={}), self.plan.devices[0], ((unit,), None), None, report)
            report.flush()
            self._save(unit, self._take([unit], results))

    def _take(self, units: Sequence[Unit], done: Done) -> list[Result]:
        """The results of a job; keeps the smallest batch size of each pair."""
        pair = units[0].pair
        self.smallest[pair] = min(self.smallest.get(pair, done.batch_size), done.batch_size)
        return done.results

    def _say_smaller_batches(self) -> None:
        for k, size in self.smallest.items():
            if size < (before := self.plan.pairs[k].batch_size):
                about = f"{self.plan.pairs[k].suite.name}, {self.plan.pairs[k].model}"
                LOG.warning(
                    "%s: memory ran out, so batches fell from %d to %d; accuracies are the same", about, before, size
                )

    def _phases(self) -> Iterator[deque[Job]]:
        """The clean blocks, from which others start; then the most expensive blocks first, to balance the workers."""
        clean_units = [unit for unit in self.plan.units if unit.group == Group()]
        yield deque(((u,), None) for u in clean_units if (u.start, u.stop) in self.left[u.pair, Clean()])
        attacks = [unit for unit in self.plan.units if unit.group != Group() and not self._failed_clean(unit)]
        clean = {(u.pair, u.start): self._block(u.pair, Clean(), (u.start, u.stop)) for u in attacks}
        for unit in attacks:
            if not unit.group.corrupted:
                self.standings.start(unit.pair, unit.group.members, clean[unit.pair, unit.start], unit.start)
            share = 1.0 if unit.group.corrupted else float(clean[unit.pair, unit.start].correct.mean())
            self._expect(unit, int(unit.passes * share), int(unit.usual * share))
        found = bundle_units(attacks, self.usual, self.plan.workers)
        yield deque((bundle, clean[bundle[0].pair, bundle[0].start]) for bundle in found)

    def _expect(self, unit: Unit, most: int, usual: int) -> None:
        """Takes better numbers of a unit's passes, at most and as usual."""
        self.total += most - self.most[unit]
        self.usual_total += usual - self.usual[unit]
        self.most[unit], self.usual[unit] = most, usual

    def _failed_clean(self, unit: Unit) -> bool:
        """Whether the unit's clean block failed; then all its cells fail."""
        reason = self.failures.get((unit.pair, Clean()), {}).get((unit.start, unit.stop))
        if reason is not None:
            self._save(unit, _fail([unit], reason))
        return reason is not None

    def _save(self, unit: Unit, results: list[Result]) -> None:
        span, pair = (unit.start, unit.stop), self.plan.pairs[unit.pair]
        blocks = [result for result in results if isinstance(result, Block)]
        spent = sum(int(block.forwards.sum()) + passes_elsewhere(block.evidence).forwards for block in blocks)
        self._expect(unit, spent, spent)
        for member, result in zip(unit.group.members, results, strict=True):
            missing = self.left[unit.pair, member]
            if isinstance(result, Failure):
                self.failures.setdefault((unit.pair, member), {})[span] = result.reason
            else:
                self.plan.store.save(pair.keys[member], *span, result)
                self.standings.finish((unit.pair, member), result, span)
            missing.discard(span)
        self._record_finished()

    def _record_finished(self) -> None:
        """Records every cell with all its blocks; a worst case follows the cells that it is taken over."""
        for i, pair in enumerate(self.plan.pairs):
            for p in pair.suite.perturbations:
                place = i, cells.canonical(p)
                if place not in self.records and self._is_done(i, members(pair, place[1])):
                    self.records[place] = self._record(i, pair, place[1])
                    self.plan.store.append(self.records[place])

    def _is_done(self, i: int, cells: Sequence[Perturbation]) -> bool:
        """Whether nothing is left of these cells; in a shard, a failed cell does not need the other shards."""
        left = set().union(*(self.left[i, cell] for cell in cells))
        failed = any((i, cell) in self.failures for cell in cells)
        return not left or (failed and left <= {(u.start, u.stop) for u in self.plan.elsewhere if u.pair == i})

    def _resume(self) -> None:
        """Takes the standings of the stored blocks of cells that are not finished."""
        for (i, member), missing in self.left.items():
            spans = self.plan.pairs[i].spans if missing else []
            for span in (span for span in spans if span not in missing):
                self.standings.finish((i, member), self._block(i, member, span), span)

    def _cells(self) -> list[CellProgress]:
        listed = [(i, pair, p) for i, pair in enumerate(self.plan.pairs) for p in pair.suite.perturbations]
        return [self._cell(i, pair, p, cells.canonical(p)) for i, pair, p in listed]

    def _cell(self, i: int, pair: Pair, p: Perturbation, own: Perturbation) -> CellProgress:
        return self.standings.describe(pair, p, [(i, m) for m in members(pair, own)], self.records.get((i, own)))

    def _block(self, pair: int, p: Perturbation, span: Span) -> Block:
        key = self.plan.pairs[pair].keys[p]
        block = self.plan.store.block(key, *span)
        if block is None:
            raise StoreError(f"block {key}/{span[0]}-{span[1]} was removed during the run; run again")
        return block

    def _record(self, index: int, pair: Pair, p: Perturbation) -> Record:
        found = members(pair, p)
        failed = [(m, self.failures[index, m]) for m in found if (index, m) in self.failures]
        error = next((f"{m}: {spans[min(spans)].removeprefix(f'{m}: ')}" for m, spans in failed), None)
        blocks = [[self._whole(index, m, span) for span in pair.spans] for m in found]
        return fill(outline(pair, p), blocks, error)

    def _whole(self, pair: int, p: Perturbation, span: Span) -> Block | None:
        failed = span in self.failures.get((pair, p), {}) or span in self.left[pair, p]
        return None if failed else self._block(pair, p, span)

    def _tick(self, passes: int, news: News) -> None:
        self.standings.update(news)
        if self.begun is None and passes:
            self.begun = perf_counter() - PERIOD
        self.done = min(self.done + passes, self.total)
        seconds = 0.0 if self.begun is None else perf_counter() - self.begun
        rate = self.done / seconds if seconds else 0.0
        left = (self.total - self.done) / rate if rate else None
        usual = max(0, self.usual_total - self.done) / rate if rate else None
        what = ", ".join(dict.fromkeys(self._describe(units) for units, _ in self.pool.active))
        self.report(Progress(what, self.done, self.total, rate, seconds, left, self._cells(), usual))

    def _describe(self, units: Sequence[Unit]) -> str:
        pair, last = self.plan.pairs[units[0].pair], units[-1].group.members[-1]
        return f"{pair.suite.name} {pair.model} {last if len(units) == 1 else f'{len(units)} attacks'}"


def _fail(units: Sequence[Unit], reason: str) -> list[Result]:
    """The results of units that could not be run."""
    return [Failure(reason) for unit in units for _ in unit.group.members]


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
    """
    plan.store.prepare(fresh=plan.fresh)
    if plan.fresh:
        keys = [key for pair in plan.pairs for key in pair.keys.values()]
        plan.store.forget(keys, [record_key(k, pair.n) for pair in plan.pairs for k in pair.keys.values()])
    if plan.shard is not None:
        outlines = tuple(outline(pair, cells.canonical(p)) for pair in plan.pairs for p in pair.suite.perturbations)
        plan.store.save_shard(ShardFile(plan.shard.index, plan.shard.count, outlines))
    return _Run(plan, report).go()


def run(
    suite: str | Suite | Sequence[str | Suite],
    model: str | Sequence[str],
    *,
    examples: int | None = None,
    seed: int | None = None,
    series: int | None = None,
    mode: Mode = "standalone",
    precision: Precision | None = None,
    out: str | os.PathLike[str] = "rlbench-results",
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    device: str = "auto",
    executor: str = "local",
    address: str | None = None,
    shard: str | None = None,
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
        precision: of the attacks' search: "fp32", "tf32" (on GPUs) or "bf16"; None: the suite's. The judge computes in
            float32, as does a last short search of what survives.
        out: the store's folder.
        batch_size: the most examples of a forward pass; "auto": what fits a GPU's memory, or 64 on a CPU. It is halved
            where memory runs out, and does not change accuracies.
        workers: processes (default: one per processor, or per GPU); they do not change the numbers.
        device: "auto", "cpu", "cuda" (every GPU) or a GPU such as "cuda:1".
        executor: where the workers are: "local", or "ray" for a Ray cluster, or a plugin's.
        address: of the Ray cluster: "auto" or HOST:PORT; None starts Ray on this machine.
        shard: "2/3" computes only every third span of examples, from the second; see `engine.run.merge`.
        fresh: start over, for the cells of this run.

    Returns:
        One record per cell; of a shard, only those of complete cells.

    Raises: RLBenchError.
    """
    where = {"workers": workers, "device": device, "executor": executor, "address": address, "shard": shard}
    how = {"examples": examples, "seed": seed, "series": series, "mode": mode, "precision": precision}
    return execute(plan(suite, model, store=out, batch_size=batch_size, fresh=fresh, **where, **how))  # type: ignore[arg-type]
