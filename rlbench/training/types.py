"""The nouns of training, without computation; `core` has all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from rlbench.core import Encoder, Modality

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

Need = Literal["f", "f_adv", "f0", "f0_adv", "means"]


def _identity(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class Batch:
    """What a training objective knows of a batch besides its features.

    Attributes:
        y: (B,) int64 labels.
        anchors: (C, D) unit rows, the classes' prompt ensembles.
        captions: (B, D) unit rows, a caption of each example.
        f0, f0_adv: (B, D) features of x and of x' by the frozen original; None where the objective does not need them.
        means: (C, D) the classes' mean unit features over all modalities that have them; None where not needed.
        gather: joins the rows of all processes, for losses that compare the rows of a batch; differentiable.
    """

    y: Tensor
    anchors: Tensor
    captions: Tensor
    f0: Tensor | None = None
    f0_adv: Tensor | None = None
    means: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = _identity


class Objective(Protocol):
    """A training method's loss; a plugin is a frozen keyword-only dataclass.

    f, f_adv are the features of x and of its adversarial x', both (B, D) float32 and not normalised.

    Attributes:
        needs: of "f" (features of x), "f_adv" (without it there is no adversary), "f0", "f0_adv", "means".
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """(B,): what training lowers. A row that is not needed is not looked at."""

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """(B,): what the adversary raises; f has no graph, and neither `f0_adv` nor a label of x' is at hand."""


class Trainable(Encoder, Protocol):
    """An encoder whose towers can be trained, against its frozen text tower."""

    def features(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), not normalised, differentiable in x and in the tower's parameters."""

    def tower(self, modality: Modality) -> Module:
        """The module whose parameters are trained: (B, *box.shape) -> (B, D)."""

    def save(self, modality: Modality, path: Path) -> None:
        """Writes the tower as safetensors, which the family's factory reads again through `files`."""
