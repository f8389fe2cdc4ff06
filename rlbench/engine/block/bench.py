"""An encoder on a suite's task, ready to be evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from rlbench.core import Ball, Box, Classifier, Edited, Encoder, Missing, Modality, Suite, Task, Threat
from rlbench.core.batch import BatchSize
from rlbench.core.knowledge import Knowledge, knowledge_of
from rlbench.core.machine import full_float32
from rlbench.core.sensors import SensorTask
from rlbench.core.sources import source_hash
from rlbench.core.threat import ball_of, check_threat, threat_of
from rlbench.encoders.black_box.classes import FixedClasses, Metered
from rlbench.encoders.contract import check_text
from rlbench.encoders.cross_modal import CrossModalTask, sensor_retriever
from rlbench.encoders.fused import Fused
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.identity import Identity
from rlbench.encoders.loading import Loaded, load
from rlbench.encoders.retrieval import Retriever, first_and_last, head_of
from rlbench.encoders.takeover import certify_takeover, find_obstacle
from rlbench.engine.attack.eot import DRAWS, Expectation
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.block.sensors import SensorInputs, identify_fused, load_fused
from rlbench.engine.block.texts import Texts, check_texts, find_texts
from rlbench.engine.cells.groups import Group


@dataclass(frozen=True)
class Bench:
    """An encoder on a suite's task, ready to be evaluated.

    Attributes:
        suite: the suite, which names the task.
        classifier: the zero-shot classifier of the task's classes.
        box: the encoder's box.
        data: the task's fingerprint.
        device: the encoder's device.
        batch: the most examples of a forward pass.
        cache: the folder of the cache of corrupted inputs (see `inputs`); None for no cache.
        identity: the encoder's identity, part of the cell key.
        texts: those that an attacker may choose, of which the classifier then gives the scores; None: they are fixed.
        surrogates: those that were loaded for this task, by name (see `surrogates`).
    """

    suite: Suite
    classifier: ZeroShot
    box: Box
    data: str
    device: str
    batch: BatchSize
    cache: Path | None = None
    identity: Identity = field(default_factory=Identity)
    texts: Texts | None = None
    surrogates: dict[str, Bench] = field(default_factory=dict, compare=False)

    @property
    def inputs(self) -> Inputs:
        """The task's examples, clean and corrupted."""
        kind = SensorInputs if isinstance(self.task, SensorTask) else Inputs
        return kind(self.task, self.data, self.box, self.seed, self.cache)

    @property
    def batch_size(self) -> int:
        """The most examples of a forward pass, at least 1."""
        return self.batch.size

    @property
    def task(self) -> Task:
        """The suite's task."""
        return self.suite.task

    @property
    def seed(self) -> int:
        """Seed of attacks and corruptions."""
        return self.suite.seed

    @property
    def modality(self) -> str:
        """The suite's modality, or its sensors."""
        return self.suite.modality

    @property
    def encoder(self) -> Encoder:
        """The classifier's encoder."""
        return self.classifier.encoder

    @property
    def randomised(self) -> bool:
        """Whether the encoder declares that its outputs are random; then their expectation is attacked."""
        return "randomised" in self.encoder.traits

    @property
    def draws(self) -> int:
        """The draws of an expectation: the encoder's `shared_draws`, if it draws once per call, or 20."""
        return getattr(self.encoder, "shared_draws", 0) or DRAWS

    def expect(self, classifier: Classifier) -> Classifier:
        """The expectation of a randomised encoder's classifier over its draws; of another one the classifier itself."""
        if not self.randomised:
            return classifier
        together = bool(getattr(self.encoder, "shared_draws", 0))
        return Expectation(classifier=classifier, draws=self.draws, seed=self.seed, together=together)

    @property
    def knowledge(self) -> Knowledge:
        """What an attacker knows of the encoder."""
        return knowledge_of(self.encoder)

    @property
    def is_metered(self) -> bool:
        """Whether the encoder's queries cost something."""
        return isinstance(self.encoder, Metered)

    @property
    def class_names(self) -> list[str]:
        """The names of the task's classes, by label."""
        return [label.name for label in self.task.classes]

    @property
    def n_classes(self) -> int:
        """The number of the task's classes."""
        return len(self.task.classes)

    @property
    def retriever(self) -> Retriever | None:
        """The classifier of a retrieval task; None for other tasks."""
        return self.classifier if isinstance(self.classifier, Retriever) else None

    def ball(self, threat: Threat) -> Ball:
        """The ball of a threat model in the encoder's box."""
        return ball_of(threat, self.box)

    def under(self, group: Group) -> Bench:
        """The bench with the classifier of a group's cells, which may lack sensors or have other texts."""
        if isinstance(group.corrupted, Edited):
            texts = find_texts(self.classifier, self.task, group.corrupted)
            return replace(self, classifier=texts.score(self.classifier), texts=texts)
        if not isinstance(group.corrupted, Missing):
            return self
        return replace(self, classifier=cast(Fused, self.classifier).without(group.corrupted.sensors))

    def certify(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The column `certified` of unattacked examples, see `encoders.takeover`; none without a certificate.

        Its passes are not counted, as those of the soundness checks.
        """
        head = self.classifier
        if not isinstance(head, Fused) or find_obstacle(head):
            return {}
        parts = [slice(i, i + self.batch_size) for i in range(0, len(x), self.batch_size)]
        return {"certified": torch.cat([certify_takeover(head, x[part], y[part]) for part in parts])}

    def on(self, task: Task) -> Bench:
        """The bench on another task with the same classes."""
        return replace(self, suite=replace(self.suite, task=task), data=task.fingerprint())

    def subject(self) -> dict[str, object]:
        """What a cell's numbers depend on besides the protocol: the encoder and the task. It enters the cell key."""
        facts = dict(self.identity.facts)
        return {
            "task": self.suite.task_name,
            "data": self.data,
            "modality": self.modality,
            "box": self.box.facts(),
            "anchors": self.classifier.anchors_hash(),
            "checkpoint": self.identity.checkpoint,
            "encoder": [type(self.encoder).__name__, source_hash(type(self.encoder).__module__)],
            "logit_scale": f"{self.classifier.logit_scale:.6g}",
        } | {name: fact for name, fact in self._more_facts(facts) if fact}

    def _more_facts(self, facts: dict[str, str]) -> list[tuple[str, object]]:
        """Facts that only some cell keys contain."""
        fused = identify_fused(self.suite, self.classifier) if isinstance(self.classifier, Fused) else None
        drawn = self.seed if self.randomised else 0  # the draws of an expectation change clean answers, too
        return [("identity", facts), ("knowledge", self._black_box()), ("fused", fused), ("seed of draws", drawn)]

    def _black_box(self) -> str:
        """What a black box gives; "" for a white box, whose key does not contain it."""
        return "" if self.knowledge == "white-box" else self.knowledge


_HEADS: list[tuple[Task, ZeroShot]] = []  # of the last pairs in this process
_ENCODERS, _TASKS = 2, 16  # the most encoders and tasks in _HEADS


@full_float32()
def prepare(
    suite: Suite,
    model: str,
    *,
    device: str = "cpu",
    batch_size: int | BatchSize = 64,
    cache: Path | None = None,
    known: Identity | None = None,
) -> Bench:
    """Loads the encoder and embeds the anchors; the process keeps both for the next call.

    Args:
        suite: the suite whose task and modality are used.
        model: the encoder's name.
        device: a torch device such as "cpu" or "cuda".
        batch_size: the most examples of a forward pass, at least 1, or what holds it.
        cache: the folder of the cache of corrupted inputs; None for no cache.
        known: the identity that the encoder had earlier in this run, in this process or in another one.

    Raises:
        UnknownName: no model has this name.
        CheckpointError: the weights cannot be loaded.
        ModalityError: the encoder lacks the suite's modality.
        DataError: the task's data are missing or damaged.
        FieldError: an eps is larger than the box, or a class name is too short for its edits.
        RLBenchError: the encoder is not frozen, differs from the known one, or breaks the contract of `core.Encoder`.
    """
    check_texts(suite)
    head: ZeroShot
    if suite.sensors:
        head, identity = load_fused(suite, model, device, known)
    else:
        loaded = load(model, cast(Modality, suite.modality), device, known)
        head, identity = _make_head(suite, model, loaded, device), loaded.identity
    for threat in filter(None, map(threat_of, suite.perturbations)):
        check_threat(threat, head.box, f"{suite.path}: eps")
    batch = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size, device)
    return Bench(suite, head, head.box, suite.task.fingerprint(), device, batch, cache, identity)


def _make_head(suite: Suite, model: str, loaded: Loaded, device: str) -> ZeroShot:
    for task, head in _HEADS:
        if task is suite.task and head.encoder is loaded.encoder and head.modality == suite.modality:
            return head
    if not isinstance(loaded.encoder, FixedClasses):
        check_text(loaded.encoder, model, first_and_last(suite.task), loaded.embedded)
    head = _head_of(suite, model, loaded, device)
    head = replace(head, anchors=head.anchors.to(device))
    _HEADS.append((suite.task, head))
    recent = list(dict.fromkeys(id(head.encoder) for _, head in reversed(_HEADS)))[:_ENCODERS]
    _HEADS[:] = [pair for pair in _HEADS if id(pair[1].encoder) in recent][-_TASKS:]
    return head


def _head_of(suite: Suite, model: str, loaded: Loaded, device: str) -> ZeroShot:
    """The classifier of the task; for retrieval across sensors, by the gallery of the same model's other sensor."""
    modality = cast(Modality, suite.modality)
    if not isinstance(suite.task, CrossModalTask) or isinstance(loaded.encoder, FixedClasses):
        return head_of(loaded.encoder, modality, suite.task)
    gallery = load(model, suite.task.medium, device)
    source = f"{suite.task.medium} {gallery.identity.checkpoint} {sorted(gallery.identity.facts.items())}"
    return sensor_retriever(loaded.encoder, modality, suite.task, gallery.encoder, source=source, device=device)
