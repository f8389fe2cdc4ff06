"""Every noun of rlbench as a Protocol or a frozen dataclass, without computation: read this file first.

B batch, C channels or classes, T frames, H rows, W columns, D embedding. Images are (C, H, W), video is (C, T, H, W),
log-mel audio is (1, mels, frames), waveforms are (1, samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from rlbench.core.box import Box as Box
from rlbench.core.knowledge import Knowledge as Knowledge

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Modality = Literal["image", "video", "audio", "thermal", "depth"]
Norm = Literal["linf", "l2"]
Split = Literal["train", "val", "test"]
Mode = Literal["standalone", "cascade", "descending"]
Trait = Literal["randomised", "dynamic", "non_differentiable", "purifies_input", "stateful"]
Field = str | int | float | bool | None
Fields = tuple[tuple[str, Field], ...]  # sorted (name, value) pairs that differ from a plugin's defaults


@dataclass(frozen=True)
class Threat:
    """A threat model: norm and eps, untargeted. eps is for a box of range 1; a Ball scales it."""

    norm: Norm
    eps: Fraction
    sensors: tuple[str, ...] = ()  # attacked, of a task with several; not in the text
    knowledge: Knowledge = "white-box"  # what the encoder gives

    def __str__(self) -> str:
        """The column text: `linf 4/255`, `l2 0.5`, `linf 4/255 label` for a black box."""
        d, known = self.eps.denominator, f" {self.knowledge}" * (self.knowledge != "white-box")
        eps = f"{float(self.eps):g}" if 10_000 % d == 0 else f"{255 * self.eps}/255" if 255 % d == 0 else self.eps
        return f"{self.norm} {eps}{known}"


@dataclass(frozen=True)
class Ball:
    """The perturbation set: the ball of `radius` (box units) about x, intersected with [low, high]."""

    norm: Norm
    radius: float
    low: float
    high: float


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


class Attack(Protocol):
    """Searches the ball about x; sees the classifier. A plugin is a frozen keyword-only dataclass.

    It may say `norms`, `needs`, `leaves_ball`, `min_classes`, and by classes its `loss_used`, `passes` and `label`.
    """

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x; the harness re-judges every row."""


class Corruption(Protocol):
    """Perturbs x at severity 1..5; never sees the classifier.

    An optional `acts_on` is the unit of the only box that it acts on, "waveform" or "log-mel". One that acts on
    waveforms gets the task's (`inputs.Recorded`), even where the encoder's box is log-mel, and its rate as a field.
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
    """A batch of a task: x (B, *box.shape) float32 in the box, y (B,) int64, and per example an id and a source.

    `source`: the recording, speaker or date that examples share, the unit of clustered intervals.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    sources: tuple[str, ...]


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


@dataclass(frozen=True)
class Clean:
    """No perturbation."""

    def __str__(self) -> str:
        return "clean"


def _call(name: str, fields: Fields) -> str:
    return name + (f"({', '.join(f'{k}={v}' for k, v in fields)})" if fields else "")


@dataclass(frozen=True)
class Adversarial:
    """An attack in a threat model. `ladder`: eps at which it runs before: smaller ones, or, descending, larger."""

    attack: str
    threat: Threat
    fields: Fields = ()
    ladder: tuple[Fraction, ...] = ()
    descending: bool = False

    @property
    def call(self) -> str:
        """The attack with its fields: `pgd(steps=3)`."""
        return _call(self.attack, self.fields)

    def __str__(self) -> str:
        return f"{self.call} {self.threat}{' descending' * self.descending}"


@dataclass(frozen=True)
class Corrupted:
    """A corruption at a severity, 1..5. `sensors`: those corrupted, of a task with several."""

    corruption: str
    severity: int
    fields: Fields = ()
    sensors: tuple[str, ...] = ()

    @property
    def call(self) -> str:
        """The corruption with its fields: `fog(kind=thick)`."""
        return _call(self.corruption, self.fields)

    def __str__(self) -> str:
        return f"{self.call} {self.severity}"


@dataclass(frozen=True)
class Composed:
    """A corruption, then an attack on the corrupted input."""

    corrupted: Corrupted
    adversarial: Adversarial

    def __str__(self) -> str:
        return f"{self.corrupted} + {self.adversarial}"


@dataclass(frozen=True)
class Worst:
    """The worst case per example over a suite's attacks of this norm and eps or smaller, or a cascade of `attacks`."""

    threat: Threat
    attacks: tuple[Adversarial, ...] = ()
    mode: Mode = "standalone"

    def __str__(self) -> str:
        return f"worst {self.threat}{' descending' * (self.mode == 'descending')}"


Perturbation = Clean | Adversarial | Corrupted | Composed | Worst


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A versioned YAML file: one task of one modality and the perturbations to run."""

    name: str
    version: int
    summary: str
    modality: Modality
    task_name: str
    task: Task
    perturbations: tuple[Perturbation, ...]
    examples: int
    seed: int
    path: str


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
    modality: Modality
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
