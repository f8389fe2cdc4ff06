"""One work unit: perturb a block of examples, verify, classify.

The silent error of this field is the optimistic one. So inputs are checked to lie in the box, the encoder to be
frozen and in evaluation mode; only clean-correct examples are attacked, and clean errors stay errors; every answer is
verified and classified afresh by the judge; what breaks a contract fails its cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from rlbench.cells import Group, plugin, source_hash
from rlbench.checkpoints import load_encoder, resolve
from rlbench.core import Adversarial, Ball, Box, Encoder, Examples, Modality, Suite
from rlbench.errors import AttackError, RLBenchError
from rlbench.heads import ZeroShot, zero_shot
from rlbench.inputs import Inputs
from rlbench.judge import Meter, Verdict, judge, run_attack
from rlbench.machine import environment
from rlbench.metrics import margin
from rlbench.records import Block
from rlbench.seeds import ExampleStreams
from rlbench.threat import ball_of, violation

OnPass = Callable[[int], None]


@dataclass(frozen=True)
class Bench:
    """An encoder on a suite's task, ready to be evaluated.

    `data` is the task's fingerprint; `kept` the folder of corrupted inputs (see `inputs`).
    """

    suite: Suite
    classifier: ZeroShot
    box: Box
    data: str
    device: str
    batch_size: int
    kept: Path | None = None

    @property
    def inputs(self) -> Inputs:
        """The task's examples, clean and corrupted."""
        return Inputs(self.suite.task, self.data, self.box, self.suite.seed, self.kept)

    @property
    def n_classes(self) -> int:
        return len(self.suite.task.classes)

    def subject(self) -> dict[str, object]:
        """What a cell's numbers depend on besides the protocol: the encoder and the task."""
        encoder, modality = self.classifier.encoder, self.suite.modality
        return {
            "task": self.suite.task_name,
            "data": self.data,
            "modality": modality,
            "box": [list(self.box.shape), self.box.low, self.box.high, self.box.unit],
            "anchors": self.classifier.anchors_hash(),
            "checkpoint": encoder.sha256.get(modality, ""),
            "encoder": [type(encoder).__name__, source_hash(type(encoder).__module__)],
            "logit_scale": f"{encoder.logit_scale:.6g}",
        }


def check_frozen(encoder: Encoder, model: str) -> None:
    """Raises RLBenchError if a module of the encoder is in training mode or has parameters that require gradients."""
    held = [encoder, *getattr(encoder, "__dict__", {}).values()]
    for module in (m for m in held if isinstance(m, torch.nn.Module)):
        if any(part.training for part in module.modules()):
            raise RLBenchError(f"the encoder {model!r} is in training mode; its factory must call eval()")
        if any(parameter.requires_grad for parameter in module.parameters()):
            raise RLBenchError(f"the encoder {model!r} is not frozen; its factory must call requires_grad_(False)")


@lru_cache(maxsize=2)
def _encoder(model: str, modality: Modality, device: str, sha256: str) -> Encoder:
    encoder = load_encoder(model, modality, device)
    check_frozen(encoder, model)
    return encoder


def prepare(suite: Suite, model: str, *, device: str = "cpu", batch_size: int = 64, kept: Path | None = None) -> Bench:
    """Loads the encoder (kept for the next call) and embeds the anchors.

    Raises: UnknownName, CheckpointError, ModalityError, DataError; RLBenchError where the encoder is not frozen.
    """
    weights = resolve(model).sha256.get(suite.modality, "")  # a path's may have been trained anew
    encoder = _encoder(model, suite.modality, device, weights)
    head = zero_shot(encoder, suite.modality, suite.task.classes, suite.task.templates)
    head = replace(head, anchors=head.anchors.to(device))
    return Bench(suite, head, encoder.boxes[suite.modality], suite.task.fingerprint(), device, batch_size, kept)


@dataclass(frozen=True)
class Failure:
    """Why a cell failed on a block: an attack or corruption crashed or broke its contract."""

    reason: str


Result = Block | Failure


def evaluate(bench: Bench, group: Group, start: int, stop: int, clean: Block | None, on_pass: OnPass) -> list[Result]:
    """Examples start..stop-1 under each member of the group, in order.

    Args:
        clean: the same examples' clean block; None for the clean group itself.
        on_pass: called with the number of examples of every forward pass.
    """
    examples = bench.inputs.load(start, stop)
    x, y = examples.x.to(bench.device), examples.y.to(bench.device)
    unit = _Unit(bench, examples, clean, on_pass, y)
    if group.corrupted is None and not group.attacks:
        return [unit.plain(x)]
    if group.corrupted is None:
        assert clean is not None
        return list(unit.ladder(group, x, clean))
    try:
        x = bench.inputs.corrupted(group.corrupted, start, stop).to(bench.device)
        base = unit.plain(x, distance=float("nan"))
    except AttackError as error:
        return [Failure(str(error))] * len(group.members)
    return list(unit.ladder(group, x, base)) if group.attacks else [base]


@dataclass(frozen=True)
class _Unit:
    """A block's examples; y is on the device."""

    bench: Bench
    examples: Examples
    clean: Block | None
    on_pass: OnPass
    y: Tensor

    def meter(self, n: int) -> Meter:
        return Meter(self.bench.classifier, n, batch_size=self.bench.batch_size, on_pass=self.on_pass)

    def _block(self, begun: float, **columns: Tensor) -> Block:
        values = {name: column.detach().cpu().numpy() for name, column in columns.items()}
        return Block(
            id=np.array(self.examples.ids, dtype=object),
            source=np.array(self.examples.sources, dtype=object),
            label=self.examples.y.numpy(),
            clean=values["prediction"] if self.clean is None else self.clean.clean,
            seconds=perf_counter() - begun,
            environment=environment(self.bench.device),
            **values,
        )

    def plain(self, x: Tensor, distance: float = 0.0) -> Block:
        """x classified as it is."""
        begun, meter = perf_counter(), self.meter(len(x))
        with torch.no_grad():
            logits = meter(x)
        m = margin(logits, self.y)
        return self._block(
            begun,
            prediction=logits.argmax(1),
            correct=m > 0,
            margin=m,
            distance=torch.full((len(x),), distance, dtype=torch.float64),
            forwards=meter.forwards,
            backwards=meter.backwards,
        )

    def ladder(self, group: Group, x: Tensor, base: Block) -> Iterator[Result]:
        """The attacks about x in ascending eps, on the examples that `base` has right."""
        rows = torch.from_numpy(base.correct).nonzero()[:, 0]
        at = rows.to(x.device)
        rung = _Rung(self, x[at], self.y[at], tuple(base.id[rows].tolist()))
        failed = ""
        for attack, member in zip(group.attacks, group.members, strict=True):
            begun = perf_counter()
            try:
                if not failed:
                    rung.climb(attack, str(member))
                    yield self._attacked(begun, base, rows, rung, spent=group.corrupted is not None)
                    continue
            except AttackError as error:
                failed = f"{member}: {error}"
            yield Failure(failed)

    def _attacked(self, begun: float, base: Block, rows: Tensor, rung: _Rung, *, spent: bool) -> Block:
        """Clean errors stay as they are: never attacked, never correct."""
        none = torch.zeros(len(base.id), dtype=torch.int64)
        forwards = torch.from_numpy(base.forwards) if spent else none
        verdict, at = rung.verdict, (rows,)
        return self._block(
            begun,
            prediction=torch.from_numpy(base.prediction).index_put(at, verdict.prediction),
            correct=torch.zeros(len(base.id), dtype=torch.bool).index_put(at, verdict.correct),
            margin=torch.from_numpy(base.margin).index_put(at, verdict.margin),
            distance=torch.zeros(len(base.id), dtype=torch.float64).index_put(at, verdict.distance),
            forwards=forwards.index_put(at, rung.forwards, accumulate=True),
            backwards=none.index_put(at, rung.backwards),
        )


class _Rung:
    """The attacked examples on a ladder: x_adv (R, *shape), broken (R,), and the last rung's verdict and passes."""

    def __init__(self, unit: _Unit, x: Tensor, y: Tensor, ids: tuple[str, ...]) -> None:
        self.unit, self.x, self.y, self.ids = unit, x, y, ids
        self.x_adv = x.clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool)

    def climb(self, attack: Adversarial, name: str) -> None:
        """Attacks what is not broken yet and judges every example, the carried ones too. Raises: AttackError."""
        ball = ball_of(attack.threat, self.unit.bench.box)
        left = (~self.broken).nonzero()[:, 0]
        meter, judging = self.unit.meter(len(left)), self.unit.meter(len(self.x))
        if len(left):
            at = left.to(self.x.device)
            streams = ExampleStreams(self.unit.bench.suite.seed, self.ids, name).take(left.tolist())
            method = plugin("attack", attack.attack, attack.fields)
            x, y = self.x[at], self.y[at]
            found = run_attack(method, meter, x, y, ball, streams)
            wrong = violation(found, x, ball)
            if wrong is not None:
                raise AttackError(wrong)
            self.x_adv[at] = found
        self.verdict = self._verdict(judging, ball)
        if ball.radius == 0 and not self.verdict.correct.all():
            raise AttackError("at eps 0 the answer is not the clean one: the encoder does not repeat itself")
        self.broken = ~self.verdict.correct
        self.forwards = judging.forwards.index_add(0, left, meter.forwards)
        self.backwards = judging.backwards.index_add(0, left, meter.backwards)

    def _verdict(self, meter: Meter, ball: Ball) -> Verdict:
        if not len(self.x):
            none = torch.empty(0)
            return Verdict(none.bool(), none.long(), none, none.double())
        found = judge(meter, self.x_adv, self.x, self.y, ball)
        # A carried example stays broken, even where another batch moves its margin by a last bit.
        carried = torch.where(self.broken, found.margin.clamp_max(0.0), found.margin)
        return replace(found, correct=found.correct & ~self.broken, margin=carried)
