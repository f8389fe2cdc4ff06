"""Tasks with several sensors: their inputs, some of them corrupted or missing, and their classifier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from rlbench.core import Corrupted, Examples, Missing, Modality, Suite, registry
from rlbench.core.errors import RLBenchError
from rlbench.core.sensors import JointBox, SensorTask
from rlbench.core.sources import source_hash
from rlbench.encoders.black_box.classes import FixedClasses
from rlbench.encoders.contract import check_text
from rlbench.encoders.fused import Fused, fuse_heads
from rlbench.encoders.identity import Identity
from rlbench.encoders.loading import load
from rlbench.encoders.retrieval import first_and_last
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.cells.keys import plugin_values


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

    def load_sounds(self, corrupted: Corrupted, start: int, stop: int) -> None:
        """None: the joint box is not a sound."""


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
        if not isinstance(one.encoder, FixedClasses):
            check_text(one.encoder, model, first_and_last(task.tasks[sensor]), one.embedded)
    identity = _join_identities({sensor: one.identity for sensor, one in loaded.items()})
    if known is not None and identity != known:
        raise RLBenchError(f"{model!r} is another encoder each time that it is made: {known.difference(identity)}")
    with torch.no_grad():
        head = fuse_heads({s: one.encoder for s, one in loaded.items()}, task, registry.make("fusion", suite.fusion))
    return head.to(device), identity


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
