"""One work unit: perturb a block of examples, verify, classify.

The silent error of this field is the optimistic one. So inputs are checked to lie in the box, the encoder to be
frozen and in evaluation mode; only clean-correct examples are attacked, and clean errors stay errors; every answer is
verified and classified afresh by the judge; what breaks a contract fails its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Classifier, Examples, Suite
from rlbench.core.errors import AttackError
from rlbench.core.machine import environment, full_float32
from rlbench.core.sources import source_hash
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import check_eps, threat_of
from rlbench.encoders.contract import check_text, scale_of
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.identity import Identity
from rlbench.encoders.loading import load
from rlbench.encoders.retrieval import Retriever, first_and_last, head_of
from rlbench.engine.attack.block_attacks import Case, Outcome
from rlbench.engine.attack.eot import Expectation
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.gallery import Ranked
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.cells.groups import Group
from rlbench.engine.soundness.consistency import evidence
from rlbench.engine.soundness.watch import AGAIN, Watch
from rlbench.store.blocks import Block

OnPass = Callable[[int], None]


@dataclass(frozen=True)
class Bench:
    """An encoder on a suite's task, ready to be evaluated.

    `data` is the task's fingerprint; `kept` the folder of corrupted inputs (see `inputs`); `identity` the encoder's.
    """

    suite: Suite
    classifier: ZeroShot
    box: Box
    data: str
    device: str
    batch_size: int
    kept: Path | None = None
    identity: Identity = field(default_factory=Identity)

    @property
    def inputs(self) -> Inputs:
        """The task's examples, clean and corrupted."""
        return Inputs(self.suite.task, self.data, self.box, self.suite.seed, self.kept)

    @property
    def n_classes(self) -> int:
        return len(self.suite.task.classes)

    def subject(self) -> dict[str, object]:
        """What a cell's numbers depend on besides the protocol: the encoder and the task."""
        encoder, facts = self.classifier.encoder, dict(self.identity.facts)
        return {
            "task": self.suite.task_name,
            "data": self.data,
            "modality": self.suite.modality,
            "box": self.box.facts(),
            "anchors": self.classifier.anchors_hash(),
            "checkpoint": self.identity.checkpoint,
            "encoder": [type(encoder).__name__, source_hash(type(encoder).__module__)],
            "logit_scale": f"{scale_of(encoder):.6g}",
        } | ({"identity": facts} if facts else {})


@full_float32()
def prepare(
    suite: Suite,
    model: str,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    kept: Path | None = None,
    known: Identity | None = None,
) -> Bench:
    """Loads the encoder (kept for the next call) and embeds the anchors.

    Args:
        known: the identity that the encoder had before in this run, in this process or in another.

    Raises: UnknownName, CheckpointError, ModalityError, DataError; FieldError for an eps beyond the box; RLBenchError
        where the encoder is not frozen, or another than the one that is known, or does not do what `core.Encoder` says.
    """
    loaded = load(model, suite.modality, device, known)
    for threat in filter(None, map(threat_of, suite.perturbations)):
        check_eps(threat.eps, threat.norm, prod(loaded.encoder.boxes[suite.modality].shape), f"{suite.path}: eps")
    check_text(loaded.encoder, model, first_and_last(suite.task), loaded.embedded)
    head = head_of(loaded.encoder, suite.modality, suite.task)
    head = replace(head, anchors=head.anchors.to(device))
    return Bench(suite, head, head.box, suite.task.fingerprint(), device, batch_size, kept, loaded.identity)


@dataclass(frozen=True)
class Failure:
    """Why a cell failed on a block: an attack or corruption crashed or broke its contract."""

    reason: str


Result = Block | Failure
MEMORY = 2**30  # bytes of adversarial points that one pool holds at a time


def _fitting(groups: Sequence[Group], x: Tensor) -> list[list[Group]]:
    """The groups in parts whose points fit in memory together."""
    room = MEMORY // max(1, x.numel() * x.element_size())
    parts: list[list[Group]] = []
    for group in groups:
        held = sum(len(other.attacks) for other in parts[-1]) if parts else room
        if held + len(group.attacks) > room:
            parts.append([])
        parts[-1].append(group)
    return parts


def evaluate(
    bench: Bench, groups: Sequence[Group], start: int, stop: int, clean: Block | None, on_pass: OnPass
) -> list[Result]:
    """Examples start..stop-1 under each member of the groups, in order.

    Args:
        groups: the clean one, or one with a corruption, or any number of groups of attacks.
        clean: the same examples' clean block; None for the clean group itself.
        on_pass: called with the number of examples of every forward pass.
    """
    examples = bench.inputs.load(start, stop)
    x, y = examples.x.to(bench.device), examples.y.to(bench.device)
    unit = _Unit(bench, examples, clean, on_pass, y, first=start == 0)
    corrupted = groups[0].corrupted
    if clean is None:
        return [unit.plain(x)]
    if corrupted is None:
        return list(unit.attacked(groups, x, clean))
    try:
        x = bench.inputs.corrupted(corrupted, start, stop).to(bench.device)
        base = unit.plain(x, distance=float("nan"))
    except AttackError as error:
        return [Failure(str(error))] * len(groups[0].members)
    return list(unit.attacked(groups, x, base)) if groups[0].attacks else [base]


@dataclass(frozen=True)
class _Unit:
    """A block's examples; y is on the device. first: the task's first ones, on which the encoder is asked again."""

    bench: Bench
    examples: Examples
    clean: Block | None
    on_pass: OnPass
    y: Tensor
    first: bool

    def meter(self, n: int, y: Tensor) -> Meter:
        """Watched; of n examples whose labels are y, over and over."""
        labels = y.repeat(n // max(len(y), 1))
        made = self._metered(labels)
        return made(n, batch_size=self.bench.batch_size, on_pass=self.on_pass, watch=Watch(labels))

    def _metered(self, labels: Tensor) -> Callable[..., Meter]:
        head = self.bench.classifier
        return partial(Ranked, head, labels) if isinstance(head, Retriever) else partial(Meter, head)

    def seen(self, meter: Classifier) -> Classifier:
        """What an attack and the judge see: of a randomised encoder, the expectation over its draws."""
        if "randomised" not in self.bench.classifier.encoder.traits:
            return meter
        return Expectation(classifier=meter, seed=self.bench.suite.seed)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """The column of embeddings, of retrieval alone."""
        head = self.bench.classifier
        return {"features": head.features(x, self.bench.batch_size)} if isinstance(head, Retriever) else {}

    def _evidence(self, sums: Mapping[str, int]) -> dict[str, int]:
        traits = self.bench.classifier.encoder.traits
        undefended = sums.get("examples", 0) if traits - {"randomised"} else 0
        # the attack ascends the expectation, whose single draws, which the watch sees, may err where it does not
        expected = {"lost": 0} if "randomised" in traits else {}
        again = {} if self.clean is None else {name: self.clean.evidence.get(name, 0) for name in AGAIN}
        return {**sums, "undefended": undefended} | expected | again

    def _again(self, x: Tensor, logits: Tensor) -> dict[str, int]:
        """Whether the encoder repeats itself on the clean examples of the first block, and in any company."""
        traits = self.bench.classifier.encoder.traits
        if not self.first or self.clean is not None:
            return {}
        made = self._metered(self.y)
        return evidence(
            lambda size: self.seen(made(len(x), batch_size=size)),
            x,
            logits,
            self.bench.box,
            self.bench.batch_size,
            graph="non_differentiable" not in traits,
            apart="randomised" not in traits,
        )

    def _block(self, seconds: float, evidence: Mapping[str, int], **columns: Tensor) -> Block:
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

    def plain(self, x: Tensor, distance: float = 0.0) -> Block:
        """x classified as it is."""
        begun, meter = perf_counter(), self.meter(len(x), self.y)
        with torch.no_grad():
            logits = self.seen(meter)(x)
        m = margin(logits, self.y)
        return self._block(
            perf_counter() - begun,
            (meter.watch.sums(m > 0) if meter.watch else {}) | self._again(x, logits),
            prediction=logits.argmax(1),
            correct=m > 0,
            margin=m,
            distance=torch.full((len(x),), distance, dtype=torch.float64),
            forwards=meter.forwards,
            backwards=meter.backwards,
            **self._features(x),
        )

    def attacked(self, groups: Sequence[Group], x: Tensor, base: Block) -> Iterator[Result]:
        """The members of groups of attacks about x, on the examples that `base` has right."""
        begun, rows = perf_counter(), torch.from_numpy(base.correct).nonzero()[:, 0]
        at = rows.to(x.device)
        case = Case(
            x=x[at],
            y=self.y[at],
            ids=tuple(base.id[rows.numpy()].tolist()),
            box=self.bench.box,
            seed=self.bench.suite.seed,
            meter=lambda n: self.meter(n, self.y[at]),
            seen=self.seen,
        )
        found = [outcome for part in _fitting(groups, x[at]) for outcome in case.attacked(part)]
        total = sum(float((o.forwards + 2 * o.backwards).sum()) for o in found if isinstance(o, Outcome))
        members = [(member, group) for group in groups for member in group.members]
        for outcome, (_, group) in zip(found, members, strict=True):
            if isinstance(outcome, str):
                yield Failure(outcome)
                continue
            share = float((outcome.forwards + 2 * outcome.backwards).sum()) / max(total, 1.0)
            yield self._attacked(outcome, base, rows, (perf_counter() - begun) * share, group)

    def _attacked(self, outcome: Outcome, base: Block, rows: Tensor, seconds: float, group: Group) -> Block:
        """Clean errors stay as they are: never attacked, never correct."""
        none = torch.zeros(len(base.id), dtype=torch.int64)
        forwards = none if group.corrupted is None else torch.from_numpy(base.forwards)
        verdict, at = outcome.verdict, (rows,)
        return self._block(
            seconds,
            outcome.evidence,
            prediction=torch.from_numpy(base.prediction).index_put(at, verdict.prediction),
            correct=torch.zeros(len(base.id), dtype=torch.bool).index_put(at, verdict.correct),
            margin=torch.from_numpy(base.margin).index_put(at, verdict.margin),
            distance=torch.zeros(len(base.id), dtype=torch.float64).index_put(at, verdict.distance),
            forwards=forwards.index_put(at, outcome.forwards, accumulate=True),
            backwards=none.index_put(at, outcome.backwards),
            **self._moved(outcome, base, at),
        )

    def _moved(self, outcome: Outcome, base: Block, at: tuple[Tensor]) -> dict[str, Tensor]:
        """The column of embeddings with those of the attacked examples in their places."""
        if base.features is None:
            return {}
        new = self._features(outcome.points())["features"].cpu()
        return {"features": torch.from_numpy(base.features).index_put(at, new)}
