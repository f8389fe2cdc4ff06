"""An encoder behind a defence, named `BASE+DEFENCE`.

A defence can act on the input, on the embedding and on the zero-shot logits. `Defence` changes nothing; a plugin of the
kind "defence" overrides what it needs. `honest()` is the defence with useful gradients, to attack through: its
expectation (EoT) or a differentiable approximation (BPDA; Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Box, Encoder, Modality, Trait
from rlbench.core.errors import RLBenchError
from rlbench.core.knowledge import Knowledge, knowledge_of
from rlbench.encoders.outputs import embed, embed_text

DRAWS = 20  # passes per expectation


@dataclass(frozen=True, kw_only=True)
class Defence:
    """The base of all defences, which does nothing.

    Attributes:
        traits: declared traits; planted defences declare none.
        draws: forward passes whose embeddings are averaged.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset()
    draws: ClassVar[int] = 1

    def front(self, x: Tensor) -> Tensor:
        """Changes the input, (B, *box.shape), scaled to [0, 1]."""
        return x

    def middle(self, embedded: Tensor) -> Tensor:
        """Changes the embedding, (B, D), which is then normalised again."""
        return embedded

    def answer(self, logits: Tensor) -> Tensor:
        """Changes the zero-shot logits, (B, C)."""
        return logits

    def honest(self) -> Defence:
        """The defence to attack through; the defence itself judges the resulting points."""
        return Defence()

    def around(self, encoder: Encoder, name: str) -> Defended:
        """The encoder behind this defence.

        Args:
            encoder: the encoder to defend.
            name: of the pair, for error messages.

        Raises: RLBenchError: the defence keeps state between inputs, and cannot reset it.
        """
        self.check_state(name)
        return Defended(encoder, self)

    def reset(self) -> None:
        """Forgets earlier inputs; a stateful defence overrides it, and gets one input at a time after a reset."""

    def check_state(self, name: str) -> None:
        """Raises: RLBenchError: the defence declares the trait stateful and does not override `reset`."""
        if "stateful" in self.traits and type(self).reset is Defence.reset:
            raise RLBenchError(
                f"{name} keeps state between inputs, so an answer would depend on the rest of its batch; "
                "only a defence with reset() can run: it is reset before every input"
            )


class Defended(nn.Module):
    """An Encoder behind a defence.

    Attributes:
        sibling: the encoder without the defence.
        defence: the defence.
        draws: forward passes whose embeddings are averaged.
    """

    def __init__(self, encoder: Encoder, defence: Defence, draws: int = 0) -> None:
        super().__init__()
        self.sibling, self.defence, self.draws = encoder, defence, draws or defence.draws

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return self.sibling.boxes

    @property
    def traits(self) -> frozenset[Trait]:
        return self.sibling.traits | self.defence.traits

    @property
    def knowledge(self) -> Knowledge:
        return knowledge_of(self.sibling)

    @property
    def logit_scale(self) -> float:
        return self.sibling.logit_scale

    @property
    def sha256(self) -> Mapping[Modality, str]:
        """Checksums of the weights and the defence together."""
        facts = {m: f"{sha} {self.defence!r}" for m, sha in self.sibling.sha256.items()}
        return {m: hashlib.sha256(text.encode()).hexdigest() for m, text in facts.items()}

    def reset(self) -> None:
        """Forgets earlier inputs, here and in the encoder."""
        self.defence.reset()
        if isinstance(self.sibling, Defended) or "stateful" in self.sibling.traits:
            self.sibling.reset()  # type: ignore[attr-defined]

    def honest(self) -> Defended:
        """The encoder to attack through."""
        through = self.defence.honest()
        return Defended(self.sibling, through, DRAWS if through == self.defence else 1)

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        box, drawn = self.boxes[modality], []
        for _ in range(self.draws):
            unit = self.defence.front((x - box.low) / (box.high - box.low))
            embedded = embed(self.sibling, box.low + (box.high - box.low) * unit, modality)
            drawn.append(self.defence.middle(embedded))
        return normalize(torch.stack(drawn).mean(0) if len(drawn) > 1 else drawn[0], dim=-1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        return embed_text(self.sibling, prompts)

    def answer(self, logits: Tensor) -> Tensor:
        """(B, C) zero-shot logits -> (B, C), after the defence."""
        return self.defence.answer(logits)
