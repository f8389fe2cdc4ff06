"""The types of training, without computation; `core` has all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from rlbench.core import Encoder, Modality

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

Need = Literal["f", "f_adv", "f0", "f0_adv", "f_adv_before", "means", "peers", "means_adv", "peers_adv"]


def _identity(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class Batch:
    """What a training objective knows of a batch besides its features.

    Attributes:
        y: (B,) int64 labels.
        anchors: (C, D) unit rows, the classes' prompt ensembles.
        captions: (B, D) unit rows, a caption of each example.
        f0: (B, D) features of x by the frozen original; None unless the objective needs it.
        f0_adv: (B, D) features of x' by the frozen original; None unless the objective needs it.
        f_adv_before: (B, D) features of x' at the weights before AWP perturbs them; None unless the objective needs it.
        means: (C, D) unit rows, the mean features of the classes over modalities; None unless the objective needs it.
        peers: (B, D), the sum of the unit features of the same examples in the other modalities; None unless the
            objective needs it.
        means_adv: (C, D) unit rows, like `means`, of adversarial features up to the last step; None unless the
            objective needs it.
        peers_adv: (M, B, D), the latest unit adversarial features of the same examples in the M other modalities, 0
            where there are none yet; None unless the objective needs it.
        gather: concatenates the rows of all processes, for losses that compare the rows of a batch; differentiable.
    """

    y: Tensor
    anchors: Tensor
    captions: Tensor
    f0: Tensor | None = None
    f0_adv: Tensor | None = None
    f_adv_before: Tensor | None = None
    means: Tensor | None = None
    peers: Tensor | None = None
    means_adv: Tensor | None = None
    peers_adv: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = _identity


class Objective(Protocol):
    """A training method's loss; a plugin is a frozen keyword-only dataclass.

    f, f_adv are the features of x and of its adversarial x', both (B, D) float32 and not normalised.

    Attributes:
        needs: what it uses: "f" (features of x), "f_adv" (without it, there is no adversary), "f0", "f0_adv",
            "f_adv_before" (with AWP alone), "means", "peers", "means_adv", "peers_adv".
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """Returns (B,), which training minimises. Features that are not in `needs` are ignored."""

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """Returns (B,), which the adversary maximises. f is detached; `batch.f0_adv` and `f_adv_before` are None."""


class Trainable(Encoder, Protocol):
    """An encoder whose towers can be trained; its text tower stays frozen."""

    def features(self, x: Tensor, modality: Modality) -> Tensor:
        """Maps x (B, *box.shape) to features (B, D), not normalised, differentiable in x and the tower's parameters."""

    def tower(self, modality: Modality) -> Module:
        """Returns the module to train: (B, *box.shape) -> (B, D)."""

    def save(self, modality: Modality, path: Path) -> None:
        """Writes the tower as safetensors, which the family's factory reads through `files`."""
