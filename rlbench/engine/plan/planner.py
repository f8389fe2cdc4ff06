"""The plan of a run: which blocks of which cells are missing from the store, and what they cost.

A cell is an encoder, a task and a perturbation; a work unit is a block of a group of cells that are computed together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Literal

from rlbench.core import Mode, Perturbation, Suite
from rlbench.core.batch import BatchSize
from rlbench.core.errors import DataError, FieldError, KnowledgeError, ModalityError, StoreError
from rlbench.core.executor import Executor, make_executor
from rlbench.core.machine import is_usable, reproducible
from rlbench.core.precision import Precision, check_precision
from rlbench.core.threat import threat_of
from rlbench.encoders.cards import Model
from rlbench.encoders.identity import Identity
from rlbench.encoders.models import OWN, resolve
from rlbench.engine import cells
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.gallery import gallery_of
from rlbench.engine.block.surrogates import identify_surrogates
from rlbench.engine.block.texts import explain_fixed_texts
from rlbench.engine.block.universal import explain_missing
from rlbench.engine.cells.modes import vary
from rlbench.engine.plan.chosen import as_several, load_chosen
from rlbench.engine.plan.cost import STARTING, bounds, largest_fitting, parse_budget
from rlbench.engine.plan.fit import DEFAULT, choose_batch_size, parse_batch_size
from rlbench.engine.plan.pilot import rehearse
from rlbench.engine.plan.present import Span, find_present
from rlbench.engine.plan.rows import plan_cells
from rlbench.engine.plan.types import Pair, Plan, PlannedCell, Shard, Unit, parse_shard
from rlbench.store.blocks import BLOCK
from rlbench.store.keys import record_key
from rlbench.store.perturbations import simplify
from rlbench.store.store import Store
from rlbench.tasks.absent import Absent, describe_absent

__all__ = ["Pair", "Plan", "PlannedCell", "Unit", "plan"]
SMALL = 4.0  # seconds: a run whose upper bound is shorter needs no pilot
PILOT = 0.03  # a pilot may take this share of the run's upper bound, or LEAST
LEAST = 8.0  # seconds, for all pilots together
MOST = 1_000_000  # examples of a task that renders them without end: half of an interval is then 0.1 points


def _used(devices: tuple[str, ...], asked: int | None, units: Sequence[Unit]) -> tuple[str, ...]:
    """The devices that get work; without a number asked for, one alone if it ends before another has started."""
    useful = max(1, len(units))
    seconds = sum(unit.expected for unit in units)
    return devices[: useful if asked is not None else max(1, min(useful, int(seconds / STARTING)))]


def _count(suite: Suite, asked: int | None) -> tuple[int, list[str]]:
    """The number of examples, and a note if the task has fewer. Raises: DataError for none; FieldError for too many."""
    n, size = asked or suite.examples, suite.task.size("test")
    if size is None and n > MOST:
        raise FieldError(f"{suite.name}: examples is {n:,}; it must be at most {MOST:,}")
    if size == 0:
        why = "; ".join(getattr(suite.task, "notes", tuple)())
        raise DataError(f"{suite.name}: the test split of {suite.task_name} is empty{f': {why}' if why else ''}")
    if size is None or n <= size:
        return n, []
    return size, [f"{suite.name}: {n} examples were asked for; its test split has {size}"]


def _units(pair: Pair, index: int, present: dict[Perturbation, set[Span]]) -> list[Unit]:
    units = []
    for group in cells.groups(pair.suite.perturbations):
        passes, usual = (sum(rates.cells[m].forwards for m in group.members) for rates in (pair.bounds, pair.rates))
        for start, stop in pair.spans:
            if any((start, stop) not in present[m] for m in group.members):
                n = stop - start
                seconds = pair.bounds.seconds(group, n), pair.rates.seconds(group, n)
                units.append(Unit(index, group, start, stop, int(passes) * n, int(usual * n), *seconds))
    return units


@dataclass
class _Draft:
    """An unfinished plan. `pairs` have the most examples; `skipped` has the cells that cannot run, with their place."""

    store: Store
    executor: Executor
    devices: tuple[str, ...]
    batch_size: int | None
    examples: int | None
    fresh: bool
    workers: int | None
    shard: Shard | None
    notes: list[str]
    skipped: list[tuple[int, PlannedCell]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    identities: dict[tuple[str, str], Identity] = field(default_factory=dict)  # by model and modality

    def __post_init__(self) -> None:
        self.device = self.devices[0] if is_usable(self.devices[0]) else "cpu"  # of the plan: Ray's may be elsewhere
        self.code_of = lru_cache(maxsize=None)(self._code_of)

    def _code_of(self, key: str, span: Span) -> str | None:
        block = None if self.fresh else self.store.block(key, *span)
        return None if block is None else block.environment.get("code", "")

    def add(self, suite: Suite, model: Model, *, alone: bool) -> None:
        n, short = _count(suite, self.examples)
        self.notes += short + [f"{suite.name}: {note}" for note in getattr(suite.task, "notes", tuple)()]
        try:
            self.pairs.append(self._pair(suite, model, n))
        except (ModalityError, KnowledgeError) as error:
            if alone:
                raise
            about = [(suite.name, suite.task_name, model.name, simplify(p), n) for p in suite.perturbations]
            self.skipped += [(len(self.pairs), PlannedCell(*cell, skipped=str(error))) for cell in about]

    def _bench(self, suite: Suite, model: str) -> Bench:
        known = self.identities.get((model, suite.modality))
        bench = prepare(suite, model, device=self.device, batch_size=self.batch_size or DEFAULT, known=known)
        self.identities[model, suite.modality] = bench.identity
        return bench

    def _pair(self, suite: Suite, model: Model, n: int) -> Pair:
        bench = self._bench(suite, model.name)
        known = identify_surrogates(bench)
        suite, fixed = cells.restrict_texts(known, explain_fixed_texts(bench.classifier))
        suite, lacking = cells.restrict(suite, bench.knowledge, partial(explain_missing, bench))
        suite, misfit = cells.restrict_corruptions(suite, bench.inputs.explain_misfit)
        about, why = (suite.name, suite.task_name, model.name), (*fixed, *lacking, *misfit)
        skipped = tuple(PlannedCell(*about, simplify(p), n, skipped=reason) for p, reason in why)
        bench = replace(bench, suite=suite)
        subject, twins = bench.subject(), bench.classifier.find_duplicate_anchors()
        if twins is not None and not isinstance(suite.task, Absent):
            one, other = (suite.task.classes[k].name for k in twins)
            self.notes.append(
                f"{suite.name}, {model.name}: {one!r} and {other!r} have one anchor, so both are always wrong"
            )
        members = [m for group in cells.groups(suite.perturbations) for m in group.members]
        listed = [cells.canonical(p) for p in suite.perturbations]
        keys = {p: cells.cell_key(subject, suite, p) for p in dict.fromkeys([*members, *listed])}
        with reproducible(self.device):
            batch_size = self.batch_size or choose_batch_size(bench)
            rates = bounds(bench)  # the largest and the usual ones
        if model.family == OWN and not bench.identity.checkpoint and not bench.identity.facts["identity()"]:
            self.notes.append(f"{model.name}: no weights were found; where they change, state sha256 or identity()")
        facts = suite, model.name, model.backbone, n, bench.n_classes, subject, keys, *rates
        return Pair(*facts, gallery_of(bench.classifier), bench.identity, skipped, bench.is_metered, batch_size)

    def pilot(self) -> None:
        """Replaces bounds by estimates, for the pairs with much to compute."""
        free = [k for k, pair in enumerate(self.pairs) if not (pair.metered or isinstance(pair.suite.task, Absent))]
        most = [(k, [unit for unit in self.plan().units if unit.pair == k]) for k in free]
        whole = sum(unit.seconds for _, units in most for unit in units)
        for k, units in most:
            seconds = sum(unit.seconds for unit in units)
            if seconds > SMALL / len(most):
                pair, groups = self.pairs[k], list(dict.fromkeys(unit.group for unit in units))
                allowed = max(PILOT * seconds, LEAST * seconds / whole)
                with reproducible(self.device):
                    bench = replace(self._bench(pair.suite, pair.model), batch=BatchSize(pair.batch_size, self.device))
                    rates = rehearse(bench, groups, pair.rates, n=pair.n, seconds=allowed)
                slowest = replace(rates, cells=pair.bounds.cells)
                self.pairs[k] = replace(pair, rates=rates, bounds=slowest)

    def fit(self, seconds: float) -> int:
        """The most examples that fit the budget. Raises: FieldError where none fits."""
        most = max(pair.n for pair in self.pairs)
        n = largest_fitting(lambda n: self.plan(n).expected <= seconds, most, BLOCK)
        if n == 0:
            raise FieldError(
                f"the budget of {seconds:g} s is too small: 1 example takes about {self.plan(1).expected:.1f} s; "
                "give more, or run fewer suites or models at a time"
            )
        self.notes.append(f"the budget has room for {n} of {most} examples")
        return n

    def plan(self, n: int | None = None) -> Plan:
        """The plan for this number of examples, or for the most."""
        pairs = [pair if n is None else replace(pair, n=min(n, pair.n)) for pair in self.pairs]
        notes, rows, units = list(self.notes), list[PlannedCell](), list[Unit]()
        for index, pair in enumerate(pairs):
            rows += [cell for place, cell in self.skipped if place == index]
            present = find_present(pair, self.code_of, notes)
            rows += plan_cells(pair, present)
            rows += pair.lacking
            units += _units(pair, index, present)
        rows += [cell for place, cell in self.skipped if place == len(pairs)]
        own = [unit for unit in units if self.shard is None or unit.start in self.shard]
        return Plan(
            cells=tuple(rows),
            notes=tuple(dict.fromkeys(notes)),
            executor=self.executor,
            devices=_used(self.devices, self.workers, own),
            fresh=self.fresh,
            store=self.store,
            pairs=tuple(pairs),
            units=tuple(own),
            shard=self.shard,
            elsewhere=tuple(unit for unit in units if self.shard is not None and unit.start not in self.shard),
        )


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise FieldError(f"{name} is {value}; it must be at least 1")


def _check_precisions(suites: Sequence[Suite], device: str) -> None:
    """Raises FieldError if the device lacks the precision of a suite's attacks."""
    for threat in (threat for suite in suites for threat in map(threat_of, suite.perturbations) if threat):
        check_precision(threat.precision, device)


def _check_distinct(draft: _Draft) -> None:
    """Raises StoreError where two models are one encoder, in the run or in the store, and would share results.

    Raises ModalityError where nothing can run.
    """
    if not draft.pairs:
        raise ModalityError(str(draft.skipped[0][1].skipped))
    same = "the same encoder: weights, code and fields are equal"
    owners: dict[str, str] = {}
    for pair in draft.pairs:
        for key in pair.keys.values():
            if (other := owners.setdefault(key, pair.model)) != pair.model:
                raise StoreError(f"{other} and {pair.model} are {same}; run one of them")
    kept = [] if draft.fresh else draft.store.records()[0]
    counts = {record.n for record in kept}
    ours = {record_key(key, n): model for n in counts for key, model in owners.items()}
    for record in kept:
        if (model := ours.get(record.key, record.model)) != record.model:
            raise StoreError(
                f"{model} is {record.model}, of which {draft.store.path} has results ({same}); continue with "
                "that name, choose another --out, or rename them with --fresh"
            )


def plan(
    suites: str | Suite | Sequence[str | Suite],
    models: str | Sequence[str],
    *,
    store: Store | str | os.PathLike[str],
    examples: int | None = None,
    budget: str | None = None,
    pilot: bool = False,
    seed: int | None = None,
    series: int | None = None,
    mode: Mode = "standalone",
    precision: Precision | None = None,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    device: str = "auto",
    executor: str = "local",
    address: str | None = None,
    shard: str | None = None,
    fresh: bool = False,
) -> Plan:
    """Checks everything, loads the encoders, and finds what is recorded; writes nothing.

    Args:
        suites: as `suite` of `run`.
        models: as `model` of `run`.
        store: as `out` of `run`; so are the arguments not listed here.
        budget: a time such as "10m": as many examples as fit it, at most `examples` or the suite's number.
        pilot: attack a few examples to estimate the cost, as a budget does; data sets may be missing (see `absent`).

    Raises:
        RLBenchError: any mistake in the arguments, the suites or the models.
        ModalityError: a single model lacks a suite's modality; one of several, or beside sensors, is skipped instead.
    """
    _check_counts(examples=examples, workers=workers)
    seconds = None if budget is None else parse_budget(budget)
    store = store if isinstance(store, Store) else Store(store)
    loaded = [vary(s, seed=seed, series=series, mode=mode, precision=precision) for s in load_chosen(suites, pilot)]
    notes = [*store.check(fresh=fresh), *describe_absent(one.task for one in loaded)]
    chosen = list({model.name: model for model in (resolve(str(one)) for one in as_several(models))}.values())
    where, share = make_executor(executor, address), None if shard is None else parse_shard(shard)
    devices = where.devices(device, workers)
    _check_precisions(loaded, devices[0])
    draft = _Draft(store, where, devices, parse_batch_size(batch_size), examples, fresh, workers, share, notes)
    for suite in loaded:
        for model in chosen:
            draft.add(suite, model, alone=len(chosen) == 1 and not any(one.sensors for one in loaded))
    _check_distinct(draft)
    if pilot or seconds is not None:
        draft.pilot()
    return draft.plan(None if seconds is None else draft.fit(seconds))
