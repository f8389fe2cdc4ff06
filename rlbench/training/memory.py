"""What the trainings of several modalities share: their latest features, by class and by example."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlbench.core import Label, Modality
from rlbench.training.means import ClassMeans
from rlbench.training.peers import Peers
from rlbench.training.types import Batch, Need

Means = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Origin:
    """Where the rows of a batch come from.

    Attributes:
        modality: the modality.
        classes: the classes that the loss compares with; labels are their indices.
        index: (B,) the numbers of the examples.
        size: the number of all examples.
    """

    modality: Modality
    classes: Sequence[Label]
    index: Tensor
    size: int


@dataclass
class Memory:
    """The latest unit features of all modalities that are trained together.

    Attributes:
        means: of clean features, by class.
        peers: clean features, by example.
        means_adv: of adversarial features, by class.
        peers_adv: adversarial features, by example.
    """

    means: ClassMeans = field(default_factory=ClassMeans)
    peers: Peers = field(default_factory=Peers)
    means_adv: ClassMeans = field(default_factory=ClassMeans)
    peers_adv: Peers = field(default_factory=Peers)

    def exchange(self, f: Tensor, origin: Origin, batch: Batch, needs: Collection[Need]) -> Batch:
        """Remembers clean features, and looks up what the objective needs of other modalities.

        Args:
            f: (B, D) features; ignored unless the objective needs `means` or `peers`.
            rows: where they come from.
            batch: what else the loss knows.
            needs: what the objective needs.

        Returns:
            The batch with those of `means`, `peers`, `means_adv` and `peers_adv` that are needed.
        """
        if "means" in needs:
            self.means.update(origin.modality, origin.classes, batch.gather(f), batch.gather(batch.y))
            batch = replace(batch, means=self.means.look_up(origin.classes, batch.anchors))
        if "peers" in needs:
            self.peers.update(origin.modality, batch.gather(origin.index), batch.gather(f), origin.size)
            batch = replace(batch, peers=self.peers.look_up(origin.modality, origin.index, f.detach()).sum(0))
        if "means_adv" in needs:
            batch = replace(batch, means_adv=self.means_adv.look_up(origin.classes, batch.anchors))
        if "peers_adv" in needs:
            batch = replace(batch, peers_adv=self.peers_adv.look_up(origin.modality, origin.index, f.detach()))
        return batch

    def remember(self, f_adv: Tensor, origin: Origin, batch: Batch, needs: Collection[Need]) -> None:
        """Remembers adversarial features (B, D) for the later batches of all modalities."""
        f_adv = f_adv.detach()
        if "means_adv" in needs:
            self.means_adv.update(origin.modality, origin.classes, batch.gather(f_adv), batch.gather(batch.y))
        if "peers_adv" in needs:
            self.peers_adv.update(origin.modality, batch.gather(origin.index), batch.gather(f_adv), origin.size)

    def copy_means(self) -> tuple[Means, Means]:
        """Copies the class means, to restore them when a step starts again."""
        first, second = ({c: dict(known) for c, known in m.rows.items()} for m in (self.means, self.means_adv))
        return first, second

    def restore_means(self, means: tuple[Means, Means]) -> None:
        """Restores what `copy_means` returned."""
        self.means.rows, self.means_adv.rows = means

    def state(self) -> dict[str, Any]:
        """Returns all that the next step depends on."""
        return {name: getattr(self, name).rows for name in ("means", "peers", "means_adv", "peers_adv")}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restores what `state` returned, on a device."""
        for means, known in ((self.means, state["means"]), (self.means_adv, state["means_adv"])):
            means.rows = {c: {m: mean.to(device) for m, mean in by.items()} for c, by in known.items()}
        for peers, known in ((self.peers, state["peers"]), (self.peers_adv, state["peers_adv"])):
            peers.rows = {name: rows.to(device) for name, rows in known.items()}
