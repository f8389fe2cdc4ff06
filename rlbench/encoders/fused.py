"""Several sensors as one classifier: it takes a vector of the joint box, and fuses the sensors' zero-shot logits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlbench.core import Box, Encoder, Fusion, Modality, Trait
from rlbench.core.errors import RLBenchError
from rlbench.core.knowledge import KNOWLEDGE, Knowledge, knowledge_of
from rlbench.core.precision import Precision
from rlbench.core.sensors import JointBox, SensorTask, joint_box
from rlbench.encoders.cross_modal import CrossModalTask
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.outputs import embed_text
from rlbench.encoders.retrieval import Paired, head_of


class SensorEncoder:
    """The encoders of several sensors as one; they may be one object.

    Args:
        encoders: of each sensor.
    """

    def __init__(self, encoders: Mapping[Modality, Encoder]) -> None:
        self.encoders = dict(encoders)

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {sensor: encoder.boxes[sensor] for sensor, encoder in self.encoders.items()}

    @property
    def traits(self) -> frozenset[Trait]:
        return frozenset[Trait]().union(*(encoder.traits for encoder in self.encoders.values()))

    @property
    def knowledge(self) -> Knowledge:
        """The least that an encoder gives."""
        return max(map(knowledge_of, self.encoders.values()), key=KNOWLEDGE.index)

    @property
    def logit_scale(self) -> float:
        """The first sensor's; each sensor's logits have their own."""
        return next(iter(self.encoders.values())).logit_scale

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {sensor: encoder.sha256.get(sensor, "") for sensor, encoder in self.encoders.items()}

    @property
    def shared_draws(self) -> int:
        """The draws of its expectation if every random encoder draws once per call; else 0."""
        drawn = [int(getattr(e, "shared_draws", 0)) for e in self.encoders.values() if "randomised" in e.traits]
        return max(drawn) if drawn and all(drawn) else 0

    @property
    def sibling(self) -> SensorEncoder | None:
        """The encoders inside their defences; None if no sensor's has one."""
        inner = {s: getattr(encoder, "sibling", encoder) for s, encoder in self.encoders.items()}
        return SensorEncoder(inner) if inner != self.encoders else None

    @property
    def honest(self) -> Callable[[], SensorEncoder] | None:
        """Makes the encoders to attack through; None if one that declares traits has no such form."""
        makers = {s: getattr(encoder, "honest", None) for s, encoder in self.encoders.items() if encoder.traits}
        if None in makers.values():
            return None
        return lambda: SensorEncoder(self.encoders | {s: make() for s, make in makers.items() if make is not None})

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the sensor's box -> (B, D), unit norm."""
        return self.encoders[modality].embed(x, modality)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm, by the first sensor's encoder."""
        return embed_text(next(iter(self.encoders.values())), prompts)


@dataclass(frozen=True, kw_only=True)
class Fused(ZeroShot):
    """A classifier of several sensors.

    Attributes:
        heads: the classifier of each sensor; `anchors` are the first one's.
        fusion: makes one answer of the sensors' logits.
        missing: sensors that give nothing, whose part of the input is ignored.
    """

    heads: Mapping[Modality, ZeroShot]
    fusion: Fusion
    missing: tuple[str, ...] = ()

    @property
    def box(self) -> JointBox:
        """The joint box of all sensors, missing ones included."""
        return joint_box({sensor: head.box for sensor, head in self.heads.items()})

    def embed(self, x: Tensor) -> Tensor:
        """(B, D) in the joint box -> (B, M * D) unit rows: the embeddings of the M present sensors side by side."""
        found = [self.heads[sensor].embed(self.box.split(x, sensor)) for sensor in self.present]
        joint: Tensor = torch.cat(found, dim=1) / len(found) ** 0.5
        return joint

    def __call__(self, x: Tensor) -> Tensor:
        """(B, D) in the joint box -> (B, C) logits, differentiable in x."""
        return self.fuse([self.classify(x, sensor) for sensor in self.present])

    @property
    def present(self) -> list[Modality]:
        """The sensors that are not missing."""
        return [sensor for sensor in self.heads if sensor not in self.missing]

    def classify(self, x: Tensor, sensor: Modality) -> Tensor:
        """(B, D) in the joint box -> (B, C) logits of one sensor."""
        return self.heads[sensor](self.box.split(x, sensor))

    def fuse(self, logits: Sequence[Tensor]) -> Tensor:
        """(B, C) logits of each present sensor -> (B, C)."""
        return self.fusion.fuse(torch.stack([one.float() for one in logits]))

    def on(self, encoder: Encoder) -> Fused:
        """The classifier with the encoders of another SensorEncoder, and the same anchors."""
        assert isinstance(encoder, SensorEncoder)
        heads = {sensor: head.on(encoder.encoders[sensor]) for sensor, head in self.heads.items()}
        return replace(self, encoder=encoder, heads=heads)

    def in_precision(self, precision: Precision) -> Fused:
        """The classifier with the encoders of all sensors in this precision."""
        return replace(self, heads={sensor: head.in_precision(precision) for sensor, head in self.heads.items()})

    def without(self, missing: Sequence[str]) -> Fused:
        """The classifier where these sensors are missing."""
        return replace(self, missing=tuple(missing))

    def to(self, device: str) -> Fused:
        """The classifier with its anchors on a device."""
        heads = {sensor: replace(head, anchors=head.anchors.to(device)) for sensor, head in self.heads.items()}
        return replace(self, heads=heads, anchors=self.anchors.to(device))

    def anchors_hash(self) -> str:
        """The hash of the anchors, if all sensors have the same; else one of all of theirs."""
        found = list(dict.fromkeys(head.anchors_hash() for head in self.heads.values()))
        return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]


def fuse_heads(encoders: Mapping[Modality, Encoder], task: SensorTask, fusion: Fusion) -> Fused:
    """The classifier of a task with several sensors.

    Args:
        encoders: of each sensor.
        task: with these sensors.
        fusion: of their answers.

    Raises: RLBenchError: the task is about retrieval, whose galleries are of one sensor.
    """
    if any(isinstance(one, Paired | CrossModalTask) for one in task.tasks.values()):
        raise RLBenchError(f"{task.modality}: retrieval has one sensor per query; choose a classification task")
    heads = {sensor: head_of(encoders[sensor], sensor, one) for sensor, one in task.tasks.items()}
    first = next(iter(heads))
    return Fused(SensorEncoder(encoders), first, heads[first].anchors, heads=heads, fusion=fusion)
