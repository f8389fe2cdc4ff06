"""A pilot: a few examples under shortened attacks, to estimate how soon examples break and what a pass costs.

An attack breaks nearly all of its broken examples in the first ten steps. So the pilot runs every cell with its attack
cut to ten steps; a broken example costs the passes it took, and a survivor will cost the whole attack. The pilot adds
chunks of examples, spread over the test split, until the estimate is steady or its time is up. It records nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import mean
from time import perf_counter

import numpy as np

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Missing, Perturbation, Threat, registry
from rlbench.core.errors import AttackError
from rlbench.core.threat import threat_of
from rlbench.engine import cells
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.evaluate import Result, evaluate
from rlbench.engine.cells.groups import Group, is_within
from rlbench.engine.plan.cost import Cost, Rates
from rlbench.store.blocks import Block

SHORT = {
    "steps": 10,
    "restarts": 1,
    "targets": 2,
    "again": 0,
    "queries": 50,
    "points": 10,
}  # largest values of attacks' fields in a pilot
LONG = 100  # passes per example: STAND_IN replaces an attack that cannot be cut below this
STAND_IN = Adversarial("apgd-ce", Threat("linf", Fraction(0)), (("steps", 10),))
IDLE = 4  # an example with at most so many passes was not attacked, only judged
LATE = 0.25  # typical share of its passes that a cell takes to break what only other attacks broke in the pilot
EARLY = 0.1  # likewise for what the stand-in broke
QUICK = 0.005  # seconds per example below which a corruption is timed on a whole chunk
CHUNK = 32  # examples per round of the pilot
STEADY = 0.06  # relative standard error at which the pilot ends


def shorten(group: Group, n_classes: int) -> Group:
    """The group with every attack cut to its first steps."""
    return replace(group, attacks=tuple(_cut(attack, n_classes) for attack in group.attacks))


def _cut(attack: Adversarial, n_classes: int) -> Adversarial:
    method = registry.make("attack", attack.attack, attack.fields)
    cut = {name: min(most, getattr(method, name)) for name, most in SHORT.items() if hasattr(method, name)}
    short = replace(attack, fields=tuple(sorted((dict(attack.fields) | cut).items())))
    if attack.surrogate or sum(cells.bound_passes(short, n_classes)) <= LONG:
        return short
    return replace(STAND_IN, threat=attack.threat, ladder=attack.ladder, descending=attack.descending)


def rehearse(bench: Bench, groups: Sequence[Group], usual: Rates, *, n: int, seconds: float) -> Rates:
    """Estimates rates from a pilot.

    Args:
        bench: without a cache of corrupted inputs.
        groups: those that the run has to compute.
        usual: the rates where no example breaks.
        n: examples of the run, from which the pilot's are taken.
        seconds: a rough limit for the attacks, and the same again for the corruptions.
    """
    corrupting, warming = _time_corruptions(bench, groups, n, perf_counter() + seconds)
    pilot, until = _Pilot(bench, groups, usual), perf_counter() + seconds
    starts = range(0, n, CHUNK)
    for done, k in enumerate(sorted(range(len(starts)), key=lambda k: k * 0.618034 % 1), 1):
        pilot.take(starts[k], min(starts[k] + CHUNK, n), until)
        if perf_counter() > until or pilot.error() * (1 - done / len(starts)) ** 0.5 < STEADY:
            break
    return replace(pilot.rates(), corrupting=corrupting, warming=warming, piloted=True)


def _time_corruptions(
    bench: Bench, groups: Sequence[Group], n: int, until: float
) -> tuple[dict[Corrupted | Missing, float], float]:
    """Seconds per example of each corruption that the run needs, and the extra seconds of first calls."""
    seconds: dict[Corrupted | Missing, float] = {}
    first: list[float] = []

    def measure(one: Corrupted | Missing, n: int) -> float:
        bench.inputs.load(0, n)
        begun = perf_counter()
        bench.inputs.load_corrupted(one, 0, n)
        return (perf_counter() - begun) / n

    for one in dict.fromkeys(g.corrupted for g in groups if isinstance(g.corrupted, Corrupted | Missing)):
        if perf_counter() > until and seconds:
            seconds[one] = mean(seconds.values())
            continue
        try:
            warm = measure(one, 1)
            seconds[one] = measure(one, min(4, n))
            if seconds[one] < QUICK:  # the fixed cost of a call, which a block shares, matters here
                seconds[one] = measure(one, min(CHUNK, n))
            first.append(max(0.0, warm - seconds[one]))
        except AttackError:
            continue  # its cell fails in the run, too
    return seconds, sum(first)


class _Pilot:
    """Results so far, (k, 3) forwards, backwards and correct of every member of every group."""

    def __init__(self, bench: Bench, groups: Sequence[Group], usual: Rates) -> None:
        self.bench, self.usual = bench, usual
        self.groups = [group for group in groups if group.attacks]
        self.results: dict[Perturbation, list[np.ndarray]] = {}
        self.times: list[tuple[int, float]] = []  # of forward passes: examples, and seconds since the last
        self.passes = np.zeros(2)
        self.rendering: list[float] = []

    def take(self, start: int, stop: int, until: float) -> None:
        """Runs a chunk of examples in every cell; compositions only while there is time."""
        begun = perf_counter()
        self.bench.inputs.load(start, stop)
        self.rendering.append((perf_counter() - begun) / (stop - start))
        clean = evaluate(self.bench, [Group()], start, stop, None, lambda n: None)[0]
        assert isinstance(clean, Block)
        self.results.setdefault(Clean(), []).append(np.stack([clean.forwards, clean.backwards, clean.correct], 1))
        plain = [group for group in self.groups if group.corrupted is None]
        composed = [[group] for group in self.groups if group.corrupted is not None]
        for k, part in enumerate([plain, *composed] if plain else composed):
            if k == 0 or perf_counter() < until:
                self._keep(part, self._run(part, start, stop, clean))

    def _run(self, part: Sequence[Group], start: int, stop: int, clean: Block) -> list[Result]:
        last = 0.0

        def tick(n: int) -> None:
            nonlocal last
            now = perf_counter()
            self.times += [(n, now - last)] if last else []
            last = now

        return evaluate(self.bench, [shorten(g, self.bench.n_classes) for g in part], start, stop, clean, tick)

    def _keep(self, part: Sequence[Group], results: Sequence[Result]) -> None:
        members = [member for group in part for member in group.members]
        cut = [m for group in part for m in shorten(group, self.bench.n_classes).members]
        found = [(m, short, r) for m, short, r in zip(members, cut, results, strict=True) if isinstance(r, Block)]
        for member, short, block in found:
            self.passes += block.forwards.sum(), block.backwards.sum()
            inside = [~other.correct for m, _, other in found if _is_within(m, member)]
            elsewhere = np.logical_or.reduce(inside) & block.correct
            whole = np.array([self.usual.cells[member].forwards, self.usual.cells[member].backwards])
            spent = np.stack([block.forwards, block.backwards], 1).astype(float)
            ran = spent.sum(1) > IDLE
            if _name(short) != _name(member):
                spent[ran & ~block.correct] = EARLY * whole
            spent[ran & block.correct] = whole
            spent[ran & elsewhere] *= LATE
            self.results.setdefault(member, []).append(np.column_stack([spent, block.correct & ~elsewhere]))

    def _columns(self) -> dict[Perturbation, np.ndarray]:
        return {member: np.concatenate(parts) for member, parts in self.results.items()}

    def error(self) -> float:
        """The relative standard error of the mean cost of an example, over the cells that all chunks ran."""
        columns = self._columns()
        most = max(map(len, columns.values()))
        each = sum((c[:, 0] + 2 * c[:, 1] for c in columns.values() if len(c) == most), np.zeros(most))
        return float(each.std() / most**0.5 / each.mean())

    def rates(self) -> Rates:
        """Estimates where there are results, and the usual ones elsewhere."""
        measured = {member: Cost(*column.mean(0).tolist()) for member, column in self._columns().items()}
        return replace(
            self.usual,
            pace=self.usual.pace.scale(self._slowdown()),
            cells={**self.usual.cells, **measured},
            rendering=mean(self.rendering),
        )

    def _slowdown(self) -> float:
        """Seconds of a pass in the pilot's full batches, over those of the probe, which times the encoder alone."""
        full = [(n, taken) for n, taken in self.times if n >= self.bench.batch_size / 2]
        share = 1.0 if full else self.passes[1] / max(self.passes[0], 1.0)  # the judge's calls are small
        full = full or self.times
        if not full:
            return 1.0
        return sum(taken for _, taken in full) / sum(n for n, _ in full) / self.usual.pace.seconds(1, share)


def _is_within(one: Perturbation, other: Perturbation) -> bool:
    """Whether both attack, and what the one may do the other may, too."""
    threat, larger = threat_of(one), threat_of(other)
    return threat is not None and larger is not None and is_within(threat, larger)


def _name(member: Perturbation) -> str:
    """The name of its attack."""
    if isinstance(member, Composed):
        return member.adversarial.attack
    return member.attack if isinstance(member, Adversarial) else ""
