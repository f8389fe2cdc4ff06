"""Tasks with several sensors: their inputs, some of them corrupted or missing, and their classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor

from rlbench.core import Ball, Composed, Corrupted, Encoder, Examples, Fusion, Missing, Modality, Suite, registry
from rlbench.core.errors import RLBenchError
from rlbench.core.knowledge import knowledge_of
from rlbench.core.sensors import JointBox, SensorTask
from rlbench.core.sources import source_hash
from rlbench.encoders.black_box.classes import FixedClasses, Metered
from rlbench.encoders.contract import check_text
from rlbench.encoders.fused import Fused, fuse_heads
from rlbench.encoders.fusion_contract import check_fusion
from rlbench.encoders.identity import Identity
from rlbench.encoders.loading import load
from rlbench.encoders.retrieval import first_and_last
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.cells.keys import plugin_values
from rlbench.engine.soundness.watch import Part


@dataclass(frozen=True)
class SensorInputs(Inputs):
    """The test examples of a task with several sensors, which share the inputs of their own tasks."""

    def load(self, start: int, stop: int) -> Examples:
        task, box = self._sensors
        return self.hold(start, stop, lambda: task.join(box, {s: self._inputs(s).load(start, stop) for s in box.spans}))

    @property
    def _sensors(self) -> tuple[SensorTask, JointBox]:
        return cast(SensorTask, self.task), cast(JointBox, self.box)

    def _inputs(self, sensor: Modality) -> Inputs:
        """The inputs of one sensor, as a suite of that sensor alone has them."""
        task, box = self._sensors
        own = task.tasks[sensor]
        return Inputs(own, own.fingerprint(), dict(box.parts)[sensor], self.seed, self.folder)

    def load_corrupted(self, corrupted: Corrupted | Missing, start: int, stop: int) -> Tensor:
        """Examples start..stop-1 with some sensors corrupted: (B, D) float32 in the joint box, on the CPU.

        Missing sensors keep their inputs, which the classifier ignores.
        """
        if isinstance(corrupted, Missing):
            return self.load(start, stop).x
        _, box = self._sensors
        one = replace(corrupted, sensors=())
        return box.join(
            {
                s: self._inputs(s).load_corrupted(one, start, stop)
                if s in corrupted.sensors
                else self._inputs(s).load(start, stop).x
                for s in box.spans
            }
        )

    def explain_misfit(self, corrupted: Corrupted) -> str:
        one = replace(corrupted, sensors=())
        reasons = (self._inputs(cast(Modality, sensor)).explain_misfit(one) for sensor in corrupted.sensors)
        return next(filter(None, reasons), "")

    def load_sounds(self, corrupted: Corrupted, start: int, stop: int) -> None:
        """None: the joint box is not a sound."""


class FusedMeter(Meter):
    """A meter of several sensors that runs the encoder of a sensor only where its input may change.

    The clean logits of a sensor that is not attacked are computed once. The judge may use them, too: it checks that
    the input of such a sensor is unchanged, bit for bit. A pass still counts once, however many encoders run.

    Args:
        head: the classifier.
        n: number of examples.
        **options: the options of `Meter`.
    """

    def __init__(self, head: Fused, n: int, **options: Any) -> None:
        super().__init__(head, n, **options)
        self.head, self.place, self.spans = head, torch.zeros(n, dtype=torch.int64), head.box.spans
        self.fixed = {sensor: torch.zeros(n, dtype=torch.bool) for sensor in head.present}
        self.clean: dict[Modality, Tensor] = {}

    def twin(self, classify: Callable[[Tensor], Tensor]) -> Self:
        other = super().twin(classify)
        other.head = cast(Fused, classify)
        return other

    def fix(self, rows: Tensor, x: Tensor, ball: Ball) -> None:
        """Learns which sensors of these examples keep their input; all calls must have the same x."""
        self.place[rows] = torch.arange(len(rows))
        still = {span.sensor for span in ball.spans if span.radius == 0} if len(x) else set()
        for sensor in (sensor for sensor in self.fixed if sensor in still):
            self.fixed[sensor][rows] = True
            if sensor not in self.clean:
                self.clean[sensor] = self._classify(sensor, x)

    def parts(self, rows: Tensor) -> list[Part]:
        return [Part(*self.spans[sensor], ~self.fixed[sensor][rows]) for sensor in self.head.present]

    def _classify(self, sensor: Modality, x: Tensor) -> Tensor:
        """(R, C) clean logits of one sensor."""
        with torch.no_grad():
            parts = [x[i : i + self.batch_size] for i in range(0, len(x), self.batch_size)]
            return torch.cat([self.head.classify(part, sensor).float() for part in parts])

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        self.classify = partial(self._fuse, rows)
        return super()._call(x, rows)

    def _fuse(self, rows: Tensor, x: Tensor) -> Tensor:
        return self.head.fuse([self._logits(sensor, rows, x) for sensor in self.head.present])

    def _logits(self, sensor: Modality, rows: Tensor, x: Tensor) -> Tensor:
        """(B, C) logits of one sensor, known or computed."""
        moving = (~self.fixed[sensor][rows]).nonzero()[:, 0].to(x.device)
        if len(moving) == len(x):
            return self.head.classify(x, sensor)
        known = self.clean[sensor][self.place[rows].to(x.device)]
        if not len(moving):
            return known
        return known.index_copy(0, moving, self.head.classify(x[moving], sensor).float())


def load_fused(suite: Suite, model: str, device: str, known: Identity | None) -> tuple[Fused, Identity]:
    """The fused classifier of a suite's sensors, and the identity of its encoders together.

    Args:
        suite: with several sensors.
        model: the encoder's name.
        device: a torch device.
        known: the identity that the encoders had earlier in this run, if any.

    Raises: RLBenchError: as `bench.prepare`.
    """
    task = cast(SensorTask, suite.task)
    held = 2 * len(suite.sensors)
    loaded = {sensor: load(model, sensor, device, held=held) for sensor in suite.sensors}
    for sensor, one in loaded.items():
        if isinstance(one.encoder, Metered):
            raise RLBenchError(f"{model} answers queries that cost something; run it on one modality at a time")
        if not isinstance(one.encoder, FixedClasses):
            check_text(one.encoder, model, first_and_last(task.tasks[sensor]), one.embedded)
    identity = _join_identities({sensor: one.identity for sensor, one in loaded.items()})
    if known is not None and identity != known:
        raise RLBenchError(f"{model!r} is another encoder each time that it is made: {known.difference(identity)}")
    encoders = {sensor: one.encoder for sensor, one in loaded.items()}
    fusion: Fusion = registry.make("fusion", suite.fusion)
    graph = all(knowledge_of(encoder) == "white-box" for encoder in encoders.values())
    check_fusion(fusion, suite.fusion, _count_present(suite), len(task.classes), graph=graph)
    return _make_head(encoders, task, fusion, device), identity


def _count_present(suite: Suite) -> list[int]:
    """How many sensors the fusion gets: all of them, and what each entry with missing ones leaves."""
    parts = [one.corrupted if isinstance(one, Composed) else one for one in suite.perturbations]
    gone = {len(one.sensors) for one in parts if isinstance(one, Missing)}
    return [len(suite.sensors) - count for count in sorted({0} | gone)]


_HEADS: list[tuple[SensorTask, Fused]] = []  # the last two of this process


def _make_head(encoders: Mapping[Modality, Encoder], task: SensorTask, fusion: Fusion, device: str) -> Fused:
    """The classifier of a task; its anchors are embedded once for all fusions."""
    for other, head in _HEADS:
        if other is task and all(head.heads[sensor].encoder is encoder for sensor, encoder in encoders.items()):
            return replace(head, fusion=fusion)
    head = fuse_heads(encoders, task, fusion).to(device)
    _HEADS[:] = [*_HEADS[-1:], (task, head)]
    return head


def _join_identities(found: dict[Modality, Identity]) -> Identity:
    """One identity of the sensors' encoders."""
    text = " ".join(f"{sensor} {one.checkpoint}" for sensor, one in found.items())
    stated = all(one.checkpoint for one in found.values())
    facts = {f"{sensor} {name}": fact for sensor, one in found.items() for name, fact in one.facts.items()}
    parts = {f"{sensor} {path}": part for sensor, one in found.items() for path, part in one.parts.items()}
    return Identity(hashlib.sha256(text.encode()).hexdigest() if stated else "", facts, parts)


def identify_fused(suite: Suite, head: Fused) -> dict[str, object]:
    """What a cell's numbers depend on besides a single encoder's facts: the fusion, and each sensor's head."""
    return {
        "fusion": plugin_values("fusion", suite.fusion, ()),
        "pairing": cast(SensorTask, suite.task).pairing,
        "heads": {
            sensor: [one.anchors_hash(), f"{one.logit_scale:.6g}", source_hash(type(one.encoder).__module__)]
            for sensor, one in head.heads.items()
        },
    }
