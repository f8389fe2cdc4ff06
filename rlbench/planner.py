"""The plan of a run: which blocks of which cells are missing from the store, and what they cost at most.

A cell is an encoder, a task and a perturbation; a work unit is a block of a group of cells that are computed together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch

from rlbench import cells
from rlbench.cells import Group
from rlbench.checkpoints import resolve
from rlbench.core import Mode, Perturbation, Suite, Worst
from rlbench.errors import DataError, FieldError, ModalityError, StoreError
from rlbench.evaluate import Bench, prepare
from rlbench.machine import code, device_of, processors, settled
from rlbench.metrics import wilson
from rlbench.records import BLOCK, Store
from rlbench.suite import load_suites
from rlbench.variants import varied

STARTING = 5.0  # seconds that a process takes to start, at most
CORRUPTING = 0.005  # seconds that a corruption takes of an example of 32 pixels, about


@dataclass(frozen=True)
class PlannedCell:
    """A cell, how much of it is recorded, and the most passes that the rest can take.

    `skipped` says why it can't run; then it has no blocks.
    """

    suite: str
    model: str
    perturbation: str
    n: int
    blocks: int = 0
    done: int = 0
    forwards: int = 0
    backwards: int = 0
    skipped: str | None = None


@dataclass(frozen=True)
class Pair:
    """A suite and a model, with the cell key of every perturbation, hidden rungs of a ladder included.

    `pace`: measured seconds of an example's forward and backward pass.
    """

    suite: Suite
    model: str
    backbone: str
    n: int
    n_classes: int
    subject: dict[str, object]
    keys: dict[Perturbation, str]
    pace: float

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The blocks, as (start, stop)."""
        return [(start, min(start + BLOCK, self.n)) for start in range(0, self.n, BLOCK)]


@dataclass(frozen=True)
class Unit:
    """A block of a group of a pair (its index in the plan), with upper bounds of its forward passes and seconds."""

    pair: int
    group: Group
    start: int
    stop: int
    passes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would run. `notes`: what the user should know of, such as damaged blocks.

    `half_width` is the Wilson interval's at 50%, in [0, 1], of the smallest cell.
    """

    cells: tuple[PlannedCell, ...]
    notes: tuple[str, ...]
    workers: int
    device: str
    batch_size: int
    fresh: bool
    store: Store
    pairs: tuple[Pair, ...]
    units: tuple[Unit, ...]

    @property
    def passes(self) -> int:
        """Upper bound of forward passes; most of them have a backward pass."""
        return sum(unit.passes for unit in self.units)

    @property
    def seconds(self) -> float:
        """Upper bound of the time, from a short timed probe of each encoder."""
        return sum(unit.seconds for unit in self.units) / self.workers

    @property
    def half_width(self) -> float:
        n = min((pair.n for pair in self.pairs), default=0)
        low, high = wilson(n // 2, n)
        return (high - low) / 2


def _several(one: object) -> list[object]:
    return list(one) if isinstance(one, Iterable) and not isinstance(one, str | os.PathLike) else [one]


def _processes(asked: int | None, device: str, units: Sequence[Unit]) -> int:
    """One a processor; one alone on a GPU, or when the work is over before another has started."""
    useful = max(1, len(units))
    if asked is not None:
        return min(asked, useful)
    seconds = sum(unit.seconds for unit in units)
    return max(1, min(processors(), useful, int(seconds / STARTING))) if device == "cpu" else 1


def _count(suite: Suite, asked: int | None) -> tuple[int, list[str]]:
    """The number of examples, and a note if the task has fewer than were asked for. Raises: DataError for none."""
    n, size = asked or suite.examples, suite.task.size("test")
    if size == 0:
        raise DataError(f"{suite.name}: the test split of {suite.task_name} is empty")
    if size is None or n <= size:
        return n, []
    return size, [f"{suite.name}: {n} examples were asked for; its test split has {size}"]


def _present(pair: Pair, store: Store, notes: list[str]) -> dict[Perturbation, set[tuple[int, int]]]:
    """The whole blocks of every perturbation in the store."""
    found: dict[Perturbation, set[tuple[int, int]]] = {p: set() for p in pair.keys}
    others = 0
    for p, span in ((p, span) for p in pair.keys for span in pair.spans if not cells.taken_over(p)):
        try:
            block = store.block(pair.keys[p], *span)
        except StoreError as error:
            notes.append(str(error))
            continue
        if block is not None:
            found[p].add(span)
            others += block.environment.get("code") != code()
    if others:
        notes.append(f"{pair.suite.name}, {pair.model}: {others} blocks are from another rlbench; --fresh renews them")
    for worst in (p for p in pair.keys if isinstance(p, Worst) and cells.taken_over(p)):
        members = cells.worst_members(worst, pair.suite.perturbations)
        found[worst] = set.intersection(*(found[cells.canonical(m)] for m in members))
    return found


def _plan_pair(
    pair: Pair, index: int, present: dict[Perturbation, set[tuple[int, int]]]
) -> tuple[list[PlannedCell], list[Unit]]:
    bounds = {p: cells.bound(p, pair.n_classes) for p in pair.keys}
    units = []
    for group in cells.groups(pair.suite.perturbations):
        passes = sum(bounds[m][0] for m in group.members)
        for start, stop in pair.spans:
            if any((start, stop) not in present[m] for m in group.members):
                cost = passes * (stop - start)
                corrupting = CORRUPTING * (stop - start) * (group.corrupted is not None)
                units.append(Unit(index, group, start, stop, cost, cost * pair.pace + corrupting))
    planned = []
    for p in pair.suite.perturbations:
        done = present[cells.canonical(p)]
        left = sum(stop - start for start, stop in pair.spans if (start, stop) not in done)
        forwards, backwards = (left * passes for passes in bounds[cells.canonical(p)])
        about = pair.suite.name, pair.model, str(p), pair.n
        planned.append(PlannedCell(*about, len(pair.spans), len(done), forwards, backwards))
    return planned, units


@dataclass(kw_only=True)
class _Draft:
    """A plan in the making."""

    store: Store
    device: str
    batch_size: int
    examples: int | None
    fresh: bool
    notes: list[str]
    cells: list[PlannedCell] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)

    def add(self, suite: Suite, model: str, *, alone: bool) -> None:
        n, short = _count(suite, self.examples)
        self.notes += short
        try:
            pair = self._pair(suite, model, n)
        except ModalityError as error:
            if alone:
                raise
            about = [(suite.name, model, str(p), n) for p in suite.perturbations]
            self.cells += [PlannedCell(*cell, skipped=str(error)) for cell in about]
            return
        present = {p: set() for p in pair.keys} if self.fresh else _present(pair, self.store, self.notes)
        planned, units = _plan_pair(pair, len(self.pairs), present)
        self.cells += planned
        self.units += units
        self.pairs.append(pair)

    def _pair(self, suite: Suite, model: str, n: int) -> Pair:
        bench = prepare(suite, model, device=self.device, batch_size=self.batch_size)
        subject, twins = bench.subject(), bench.classifier.twins()
        if twins is not None:
            one, other = (suite.task.classes[k].name for k in twins)
            self.notes.append(f"{suite.name}, {model}: {one!r} and {other!r} have one anchor, so both are always wrong")
        members = [m for group in cells.groups(suite.perturbations) for m in group.members]
        listed = [cells.canonical(p) for p in suite.perturbations]
        keys = {p: cells.cell_key(subject, suite, p) for p in dict.fromkeys([*members, *listed])}
        found = resolve(model)
        with settled(self.device):
            pace = _seconds_a_pass(bench)
        return Pair(suite, found.name, found.backbone, n, bench.n_classes, subject, keys, pace)


def plan(
    suites: str | Suite | Sequence[str | Suite],
    models: str | Sequence[str],
    *,
    store: Store | str | os.PathLike[str],
    examples: int | None = None,
    seed: int | None = None,
    series: int | None = None,
    mode: Mode = "standalone",
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    fresh: bool = False,
) -> Plan:
    """Checks everything, loads the encoders, and finds what is recorded; writes nothing.

    Args: as of `run`, with `store` for `out`.

    Raises: RLBenchError; ModalityError where a single model lacks a suite's modality (of several, it is skipped).
    """
    for name, value in (("examples", examples), ("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise FieldError(f"{name} is {value}; it must be at least 1")
    store = store if isinstance(store, Store) else Store(store)
    store.check()
    loaded = [s for one in _several(suites) for s in ([one] if isinstance(one, Suite) else load_suites(str(one)))]
    loaded = list({(s.path, s.name, s.modality): s for s in loaded}.values())
    loaded = [varied(one, seed=seed, series=series, mode=mode) for one in loaded]
    names = list(dict.fromkeys(resolve(str(one)).name for one in _several(models)))
    chosen = device_of(device)
    notes = store.records()[1]
    draft = _Draft(store=store, device=chosen, batch_size=batch_size, examples=examples, fresh=fresh, notes=notes)
    for suite in loaded:
        for model in names:
            draft.add(suite, model, alone=len(names) == 1)
    if not draft.pairs:
        raise ModalityError(next(str(cell.skipped) for cell in draft.cells))
    return Plan(
        cells=tuple(draft.cells),
        notes=tuple(dict.fromkeys(draft.notes)),
        workers=_processes(workers, chosen, draft.units),
        device=chosen,
        batch_size=batch_size,
        fresh=fresh,
        store=store,
        pairs=tuple(draft.pairs),
        units=tuple(draft.units),
    )


def _seconds_a_pass(bench: Bench) -> float:
    """Of a forward pass and its backward pass, per example: timed on growing batches up to a tenth of a second."""
    middle = (bench.box.low + bench.box.high) / 2
    seconds = 0.0
    for size in (1, 1, 4, 16):  # the first call pays for what is lazy
        x = torch.full((size, *bench.box.shape), middle, device=bench.device, requires_grad=True)
        begun = perf_counter()
        float(torch.autograd.grad(bench.classifier(x).sum(), x)[0].sum())
        seconds = (perf_counter() - begun) / size
        if seconds * size > 0.1 and size > 1:
            break
    return seconds
