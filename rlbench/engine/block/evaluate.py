"""One work unit: perturb a block of examples, verify, classify.

An optimistic error goes unnoticed in this field. So inputs must lie in the box, and the encoder must be frozen and in
evaluation mode; only clean-correct examples are attacked, and clean errors remain errors; the judge verifies every
point and classifies it afresh; a broken contract fails its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Classifier, Clean, Edited, Examples, Perturbation
from rlbench.core.errors import AttackError
from rlbench.core.machine import environment
from rlbench.core.precision import Precision
from rlbench.core.stats.metrics import margin
from rlbench.engine.attack.block_attacks import Case, MemberOutcome, OnStanding, ignore
from rlbench.engine.attack.exact import lower
from rlbench.engine.attack.meter import Meter
from rlbench.engine.attack.schedule import Standing
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.meters import choose_meter
from rlbench.engine.block.universal import find_elsewhere
from rlbench.engine.cells.groups import Group, canonical, group_of
from rlbench.engine.soundness.consistency import count_inconsistent
from rlbench.engine.soundness.watch import AGAIN, Watch
from rlbench.store.blocks import Block

OnPass = Callable[[int], None]


@dataclass(frozen=True)
class Failure:
    """Why a cell failed on a block: an attack or a corruption crashed or broke its contract."""

    reason: str


Result = Block | Failure
MEMORY = 2**30  # bytes of adversarial points that one pool holds at a time


def _split(groups: Sequence[Group], x: Tensor) -> list[list[Group]]:
    """Splits the groups into parts that search in one precision and whose points fit in memory together."""
    room = MEMORY // max(1, x.numel() * x.element_size())
    parts: list[list[Group]] = []
    for group in groups:
        held = sum(len(other.attacks) for other in parts[-1]) if parts else room
        if held + len(group.attacks) > room or _precision(parts[-1][-1]) != _precision(group):
            parts.append([])
        parts[-1].append(group)
    return parts


def _precision(group: Group) -> Precision:
    return group.attacks[0].threat.precision


def evaluate(
    bench: Bench,
    groups: Sequence[Group],
    start: int,
    stop: int,
    clean: Block | None,
    on_pass: OnPass,
    on_standing: OnStanding = ignore,
) -> list[Result]:
    """Evaluates examples start..stop-1 under each member of the groups, in order.

    Args:
        bench: the encoder and the task.
        groups: the clean group, or one with a corruption, or any number of groups of attacks.
        start: index of the first example.
        stop: index after the last example.
        clean: the clean block of the same examples; None for the clean group itself.
        on_pass: called with the number of examples of every forward pass.
        on_standing: called with the standings of the members on these examples while attacks run.
    """
    try:
        unit, x = _load(bench.under(groups[0]), start, stop, clean, on_pass)
        unit = replace(unit, on_standing=on_standing)
        if clean is None:
            return [unit.classify(x)]
        x, base = unit.corrupt(groups[0], x, clean)
    except AttackError as error:
        return [Failure(str(error)) for group in groups for _ in group.members]
    return unit.attack(groups, x, base)[0] if groups[0].attacks else [base]


@dataclass(frozen=True)
class PerturbedBlock:
    """Examples before and after a perturbation, and what a run records of them.

    Attributes:
        x: (B, *shape) clean examples in the box, on the bench's device.
        x_adv: (B, *shape) perturbed examples; an example that was not attacked keeps its input.
        clean: the block of x.
        perturbed: the block of x_adv.
    """

    x: Tensor
    x_adv: Tensor
    clean: Block
    perturbed: Block


def perturb(bench: Bench, perturbation: Perturbation, start: int, stop: int) -> PerturbedBlock:
    """The points at which a run judges examples start..stop-1 under a perturbation.

    Raises: AttackError where the attack or the corruption crashes or breaks its contract.
    """
    unit, x = _load(bench, start, stop, None, lambda passes: None)
    clean = unit.classify(x)
    if perturbation == Clean():
        return PerturbedBlock(x, x, clean, clean)
    group = group_of(perturbation)
    unit = replace(unit, clean=clean, bench=bench.under(group))
    x_base, base = unit.corrupt(group, x, clean)
    if not group.attacks:
        return PerturbedBlock(x, x_base, clean, base)
    at = group.members.index(canonical(perturbation))
    results, outcomes = unit.attack([group], x_base, base)
    result, outcome = results[at], outcomes[at]
    if isinstance(result, Failure) or isinstance(outcome, str):
        raise AttackError(str(outcome))
    x_adv = x_base.clone()
    x_adv[torch.from_numpy(base.correct).to(x.device)] = outcome.points()
    return PerturbedBlock(x, x_adv, clean, result)


def _load(bench: Bench, start: int, stop: int, clean: Block | None, on_pass: OnPass) -> tuple[_Unit, Tensor]:
    examples = bench.inputs.load(start, stop)
    x, y = examples.x.to(bench.device), examples.y.to(bench.device)
    return _Unit(bench, examples, clean, on_pass, y, (start, stop)), x


@dataclass(frozen=True)
class _Unit:
    """A block's examples, with y (B,) on the device; `span` is their (start, stop)."""

    bench: Bench
    examples: Examples
    clean: Block | None
    on_pass: OnPass
    y: Tensor
    span: tuple[int, int]
    on_standing: OnStanding = ignore

    def meter(self, n: int, y: Tensor) -> Meter:
        """A watched meter of n examples; their labels are y, repeated."""
        labels = y.repeat(n // max(len(y), 1))
        make = choose_meter(self.bench, labels)
        return make(n, batch_size=self.bench.batch, on_pass=self.on_pass, watch=Watch(labels))

    def wrap(self, meter: Classifier) -> Classifier:
        """The classifier that attacks and the judge use: for a randomised encoder, its expectation."""
        return self.bench.expect(meter)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """The column of embeddings, for retrieval only."""
        head = self.bench.retriever
        return {} if head is None else {"features": head.features(x, self.bench.batch_size)}

    def _evidence(self, sums: Mapping[str, int]) -> dict[str, int]:
        traits = self.bench.encoder.traits
        undefended = sums.get("examples", 0) if traits - self._allowed_traits() else 0
        # The watch sees single draws, which may be wrong where the expectation is right.
        expected = {"lost": 0} if self.bench.randomised else {}
        again = {} if self.clean is None else {name: self.clean.evidence.get(name, 0) for name in AGAIN}
        return {**sums, "undefended": undefended} | expected | again

    def _allowed_traits(self) -> set[str]:
        """Traits that need no adaptive attack: EoT handles randomness; attacks on a black box need no gradients."""
        return {"randomised"} | ({"non_differentiable"} if self.bench.knowledge != "white-box" else set())

    def _count_inconsistent(self, x: Tensor, logits: Tensor) -> dict[str, int]:
        """On the task's first block, counts the examples whose logits change when they are classified again."""
        if self.span[0] != 0 or self.clean is not None or self.bench.is_metered:
            return {}  # the outputs of a metered encoder are cached
        make = choose_meter(self.bench, self.y)
        return count_inconsistent(
            lambda size: self.wrap(make(len(x), batch_size=size)),
            x,
            logits,
            self.bench.box,
            self.bench.batch_size,
            graph="non_differentiable" not in self.bench.encoder.traits and self.bench.knowledge == "white-box",
            apart=not self.bench.randomised,
        )

    def _make_block(self, seconds: float, evidence: Mapping[str, int], **columns: Tensor) -> Block:
        values = {name: column.detach().cpu().numpy() for name, column in columns.items()}
        return Block(
            id=np.array(self.examples.ids, dtype=object),
            source=np.array(self.examples.sources, dtype=object),
            label=self.examples.y.numpy(),
            clean=values["prediction"] if self.clean is None else self.clean.clean,
            seconds=seconds,
            environment=environment(self.bench.device),
            evidence=self._evidence(evidence),
            **values,
        )

    def corrupt(self, group: Group, x: Tensor, clean: Block) -> tuple[Tensor, Block]:
        """The inputs that the group's attacks start from, and their block. Raises: AttackError."""
        if group.corrupted is None:
            return x, clean
        if isinstance(group.corrupted, Edited):  # what is wrong with the task's own texts stays wrong
            block = self.classify(x)
            return x, replace(block, correct=block.correct & clean.correct)
        x = self.bench.inputs.load_corrupted(group.corrupted, *self.span).to(self.bench.device)
        return x, self.classify(x, distance=float("nan"))

    def classify(self, x: Tensor, distance: float = 0.0) -> Block:
        """Classifies x (B, *shape) without an attack."""
        begun, meter = perf_counter(), self.meter(len(x), self.y)
        with torch.no_grad():
            logits = meter.attempt(lambda: self.wrap(meter)(x))
        m = margin(logits, self.y)
        return self._make_block(
            perf_counter() - begun,
            (meter.watch.sums(m > 0) if meter.watch else {})
            | meter.attempt(lambda: self._count_inconsistent(x, logits)),
            prediction=logits.argmax(1),
            correct=m > 0,
            margin=m,
            distance=torch.full((len(x),), distance, dtype=torch.float64),
            forwards=meter.forwards,
            backwards=meter.backwards,
            **meter.attempt(lambda: self._features(x) | self.bench.certify(x, self.y)),
        )

    def _report(self, before: int, standings: Mapping[Perturbation, Standing]) -> None:
        """Reports standings on the whole block, of which `before` examples were wrong before the attacks."""
        self.on_standing(
            {p: Standing(s.n + before, s.decided + before, s.wrong + before) for p, s in standings.items()}
        )

    def attack(self, groups: Sequence[Group], x: Tensor, base: Block) -> tuple[list[Result], list[MemberOutcome | str]]:
        """Results and outcomes of the groups' members around x, attacking the examples that `base` has right."""
        begun, rows = perf_counter(), torch.from_numpy(base.correct).nonzero()[:, 0]
        at = rows.to(x.device)
        case = Case(
            x=x[at],
            y=self.y[at],
            ids=tuple(base.id[rows.numpy()].tolist()),
            box=self.bench.box,
            seed=self.bench.seed,
            meter=lambda n: self.meter(n, self.y[at]),
            wrap=self.wrap,
            lower=lambda meter, precision: meter.twin(lower(self.bench.classifier, precision)),
            on_standing=partial(self._report, len(base.id) - len(rows)),
            elsewhere=partial(find_elsewhere, self.bench, self.y[at], self.on_pass, self.span[0] == 0),
        )
        outcomes = [outcome for part in _split(groups, x[at]) for outcome in case.attack(part)]
        cost = sum(outcome.cost for outcome in outcomes if isinstance(outcome, MemberOutcome))
        rate = (perf_counter() - begun) / max(cost, 1.0)
        results: list[Result] = []
        for outcome, group in zip(outcomes, [one for one in groups for _ in one.members], strict=True):
            if isinstance(outcome, str):
                results.append(Failure(outcome))
                continue
            results.append(self._block_of(outcome, base, rows, rate * outcome.cost, group))
        return results, outcomes

    def _block_of(self, outcome: MemberOutcome, base: Block, rows: Tensor, seconds: float, group: Group) -> Block:
        """The block of a member. Clean errors are unchanged: never attacked, never correct."""
        none = torch.zeros(len(base.id), dtype=torch.int64)
        forwards = none if group.corrupted is None else torch.from_numpy(base.forwards)
        judgement, at = outcome.judgement, (rows,)
        return self._make_block(
            seconds,
            outcome.evidence,
            prediction=torch.from_numpy(base.prediction).index_put(at, judgement.prediction),
            correct=torch.zeros(len(base.id), dtype=torch.bool).index_put(at, judgement.correct),
            margin=torch.from_numpy(base.margin).index_put(at, judgement.margin),
            distance=torch.zeros(len(base.id), dtype=torch.float64).index_put(at, judgement.distance),
            forwards=forwards.index_put(at, outcome.forwards, accumulate=True),
            backwards=none.index_put(at, outcome.backwards),
            **self._update_features(outcome, base, at),
        )

    def _update_features(self, outcome: MemberOutcome, base: Block, at: tuple[Tensor]) -> dict[str, Tensor]:
        """The column of embeddings, with new ones for the attacked examples."""
        if base.features is None:
            return {}
        new = self._features(outcome.points())["features"].cpu()
        return {"features": torch.from_numpy(base.features).index_put(at, new)}
