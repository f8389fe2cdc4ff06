"""Every noun of rlbench as a Protocol or a frozen dataclass, without computation: read this file first.

B batch, C channels or classes, T frames, H rows, W columns, D embedding. Images are (C, H, W), video is (C, T, H, W),
log-mel audio is (1, mels, frames), waveforms are (1, samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from rlbench.core.box import Box as Box
from rlbench.core.knowledge import Knowledge as Knowledge
from rlbench.core.perturbation_types import Adversarial as Adversarial
from rlbench.core.perturbation_types import Clean as Clean
from rlbench.core.perturbation_types import Composed as Composed
from rlbench.core.perturbation_types import Corrupted as Corrupted
from rlbench.core.perturbation_types import Edited as Edited
from rlbench.core.perturbation_types import Field as Field
from rlbench.core.perturbation_types import Fields as Fields
from rlbench.core.perturbation_types import Missing as Missing
from rlbench.core.perturbation_types import Mode as Mode
from rlbench.core.perturbation_types import Norm as Norm
from rlbench.core.perturbation_types import Perturbation as Perturbation
from rlbench.core.perturbation_types import Surrogate as Surrogate
from rlbench.core.perturbation_types import Threat as Threat
from rlbench.core.perturbation_types import Worst as Worst
from rlbench.core.precision import Precision as Precision

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Modality = Literal["image", "video", "audio", "thermal", "depth"]
Split = Literal["train", "val", "test"]
Trait = Literal["randomised", "dynamic", "non_differentiable", "purifies_input", "stateful"]


@dataclass(frozen=True)
class Span:
    """The coordinates start..stop-1 of a sensor in a vector of several, its shape, and the radius of its own ball."""

    sensor: str
    start: int
    stop: int
    radius: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Ball:
    """The perturbation set: the ball of `radius` (box units; l0: positions) about x, intersected with [low, high].

    With `spans`, x is a vector (B, D), and the set is the product of the balls of its sensors; `radius` is the largest.
    """

    norm: Norm
    radius: float
    low: float
    high: float
    spans: tuple[Span, ...] = ()


class Streams(Protocol):
    """One stateless random stream per example; the same call gives the same numbers in any batch or order."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def child(self, name: str) -> Streams:
        """Independent streams of the same examples, for a restart, a target, a frame."""

    def take(self, rows: Sequence[int]) -> Streams:
        """The streams of some rows of the batch."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32 in [-1, 1)."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, standard normal."""

    def generators(self) -> list[np.random.Generator]:
        """One fresh numpy generator per example."""


class Classifier(Protocol):
    """What an attack sees: (B, *box.shape) -> (B, C) float32 logits, differentiable in x.

    `rows` says which examples of the attacked batch the rows of x are (default: all, in order), so that passes are
    counted per example. `batch_size` is the largest call that fits in memory; the harness splits a larger one.
    """

    @property
    def batch_size(self) -> int: ...

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor: ...


class Encoder(Protocol):
    """Maps any of its modalities and text to unit vectors of one space; a black box has `knowledge` (`core.knowledge`).

    Attributes:
        boxes: the box of every modality that it has.
        traits: what an attacker has to know: randomised, dynamic, non_differentiable, purifies_input, stateful.
        logit_scale: the temperature of its zero-shot logits, `logit_scale * cos`.
        sha256: of the weights in use, by modality. A method `identity()`, if any, adds a text or mapping to cell keys.
    """

    @property
    def boxes(self) -> Mapping[Modality, Box]: ...

    @property
    def traits(self) -> frozenset[Trait]: ...

    @property
    def logit_scale(self) -> float: ...

    @property
    def sha256(self) -> Mapping[Modality, str]: ...

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm, differentiable in x."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""


class Fusion(Protocol):
    """Makes one answer of the sensors' answers. A plugin is a frozen keyword-only dataclass.

    Attributes:
        least: the least number of sensors that the rule is defined for.
    """

    least: ClassVar[int]

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C), one answer per sensor at the encoder's scale -> (N, C), which a constant per row may shift."""


class Attack(Protocol):
    """Searches the ball about x; sees the classifier. A plugin is a frozen keyword-only dataclass.

    It may say `norms`, `needs`, `leaves_ball`, `min_classes`, and by classes its `loss_used`, `passes` and `label`; and
    `universal`, if its method `make` makes one perturbation for all examples from `examples` others.
    """

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x; the harness re-judges every row."""


class Corruption(Protocol):
    """Perturbs x at severity 1..5; never sees the classifier.

    An optional `acts_on` is the unit of the only box that it acts on, "waveform" or "log-mel". One that acts on
    waveforms gets the task's (`inputs.Recorded`), even where the encoder's box is log-mel, and its rate as a field.
    An optional `smallest` is the least height and width in pixels that it takes.
    """

    modalities: ClassVar[frozenset[Modality]]

    def __call__(self, x: Tensor, severity: int, streams: Streams) -> Tensor:
        """(B, *shape) in the unit box [0, 1] -> the same shape and dtype, in the box; x is not changed."""


@dataclass(frozen=True)
class Label:
    """A class of a task: its label in the data, its name in English, and as `{a}` has it ("": as `articles` says)."""

    label: str
    name: str
    phrase: str = ""


@dataclass(frozen=True)
class Examples:
    """A batch of a task: x (B, *box.shape) float32 in the box, y (B,) int64, and per example an id and a source."""

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    sources: tuple[str, ...]  # the recording, speaker or date that examples share, the unit of clustered intervals


class Task(Protocol):
    """Labelled examples of one modality, class names, templates (`{}`: name, `{a}`: with article), maybe `notes()`."""

    @property
    def modality(self) -> Modality: ...

    @property
    def classes(self) -> tuple[Label, ...]: ...

    @property
    def templates(self) -> tuple[str, ...]: ...

    def size(self, split: Split) -> int | None:
        """Number of examples of the split; None: any number (a procedural world)."""

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Examples start..stop-1 of the split, in a fixed order, rendered at the box. A prefix never changes."""

    def fingerprint(self) -> str:
        """A hash of what the examples are made of: generator version and fields, or the files' bytes."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A versioned YAML file: one task and the perturbations to run.

    `modality`: of the task, or such as "image+audio" of one with several sensors, which has `sensors` and a `fusion`.
    """

    name: str
    version: int
    summary: str
    modality: str
    task_name: str
    task: Task
    perturbations: tuple[Perturbation, ...]
    examples: int
    seed: int
    path: str
    sensors: tuple[Modality, ...] = ()
    fusion: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Counts and provenance of one finished cell (encoder x task x perturbation).

    `key`: content hash of all that the numbers depend on, n included. A failed cell has `error` and no counts: it is
    never robust. `perturbation`: without ladders (see `store.perturbations`). `flags`: which examples are correct, n
    bits in whole bytes, hexadecimal.
    """

    key: str
    suite: str
    suite_version: int
    task: str
    modality: str
    model: str
    backbone: str
    perturbation: Perturbation
    n: int
    n_correct: int | None
    error: str | None
    forwards: int
    backwards: int
    flags: str | None = None
    provenance: Mapping[str, Field] = field(default_factory=dict)
