"""Test-time defences: they see the whole zero-shot classifier, and may take gradients of it for every input.

A number that was measured by an attack that does not see such a defence is not its robustness. So each defence says by
which ways it has to be attacked (`ways`), and `audit.adaptive` runs them: Croce et al., 2022,
https://arxiv.org/abs/2202.13711.

A randomised defence draws once per call from torch's global generator, the same numbers for all rows of a batch. So the
output for an example does not depend on its batch, and its expectation takes one call per draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Box, Encoder, Modality
from rlbench.core.errors import RLBenchError
from rlbench.core.knowledge import knowledge_of
from rlbench.encoders.defences.defended import Defence, Defended
from rlbench.encoders.heads import ZeroShot

SHARED_DRAWS = 5  # the mean over them judges: Croce et al., 2022


class Held(NamedTuple):
    """The logits (B, C) of a form of a defence, and how far each input (B,) is from where the form is valid, >= 0."""

    logits: Tensor
    slack: Tensor


@dataclass(frozen=True)
class Way:
    """A differentiable form of a defence, to attack in its place.

    Attributes:
        name: what it does, such as "pipeline" or "branch: noise".
        run: from the undefended classifier and x (B, *box.shape) to logits and slack.
    """

    name: str
    run: Callable[[ZeroShot, Tensor], Held]


def hold_nothing(logits: Tensor) -> Held:
    """A form without a gate: its slack is 0."""
    return Held(logits, logits.new_zeros(len(logits)))


@dataclass(frozen=True, kw_only=True)
class ClassifierDefence(Defence):
    """The base of the test-time defences. A subclass overrides `embed`, or `predict` where it needs the classes.

    Attributes:
        needs_gradient: whether it takes gradients of the encoder.
        needs_classes: whether it needs the logits of a task's classes.
    """

    needs_gradient: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False

    def embed(self, plain: ZeroShot, x: Tensor) -> Tensor:
        """The defended embedding (B, D) of x (B, *box.shape), from the undefended classifier."""
        return plain.embed(x)

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        """The defended logits (B, C) of x (B, *box.shape), from the undefended classifier."""
        return plain.logit_scale * (normalize(self.embed(plain, x), dim=-1) @ plain.anchors.T)

    def ways(self) -> tuple[Way, ...]:
        """The forms to attack, besides the undefended classifier: here the defence itself, by its own gradient."""
        return (Way("pipeline", lambda plain, x: hold_nothing(self.predict(plain, x))),)

    def around(self, encoder: Encoder, name: str) -> Fronted:
        """The encoder behind this defence.

        Raises: RLBenchError: the encoder gives no gradients and the defence needs them, or see `Defence.around`.
        """
        self.check_state(name)
        blind = knowledge_of(encoder) != "white-box" or "non_differentiable" in encoder.traits
        if self.needs_gradient and blind:
            raise RLBenchError(
                f"{name} takes gradient steps at test time, and the encoder gives no gradients; put it before a "
                "differentiable encoder, or choose a defence that needs none, such as +view-mean"
            )
        return Fronted(encoder, self)


class Fronted(Defended):
    """An encoder behind a test-time defence.

    Attributes:
        sibling: the encoder without the defence.
        defence: the defence.
        shared_draws: the draws of its expectation, each the same for all rows of a call; 0 if it is not random.
    """

    def __init__(self, encoder: Encoder, defence: ClassifierDefence) -> None:
        super().__init__(encoder, defence)
        self.procedure = defence

    @property
    def shared_draws(self) -> int:
        inner = int(getattr(self.sibling, "shared_draws", 0))
        if "randomised" in self.sibling.traits and not inner:
            return 0  # its draws depend on the rows before
        return SHARED_DRAWS if "randomised" in self.procedure.traits else inner

    @property
    def needs_classes(self) -> bool:
        """Whether embeddings lack the defence, which needs the classes."""
        return self.procedure.needs_classes

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm; undefended where the defence needs the classes."""
        plain = ZeroShot(self.sibling, modality, x.new_zeros(0, 0))
        return normalize(self.procedure.embed(plain, x), dim=-1)

    def predict(self, head: ZeroShot, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits; `head` is the classifier with this encoder."""
        plain = head.on(self.sibling)
        if "stateful" not in self.traits:
            return self.procedure.predict(plain, x)
        rows = []
        for one in torch.split(x, 1):
            self.reset()
            rows.append(self.procedure.predict(plain, one))
        return torch.cat(rows) if rows else self.procedure.predict(plain, x)

    def ways(self) -> tuple[Way, ...]:
        """The forms of the defence to attack."""
        return self.procedure.ways()


def ascent(objective: Callable[[Tensor], Tensor], x: Tensor, *, unroll: bool = False) -> Tensor:
    """The gradient (B, *shape) of an objective (B,) at x.

    Args:
        objective: of the inputs (B, *shape).
        x: (B, *shape).
        unroll: whether the gradient itself is differentiable in x (double backward); otherwise it is a constant.
    """
    with torch.enable_grad():
        at = x.clone() if unroll and x.requires_grad else x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(at).sum(), at, create_graph=unroll)
    return gradient


def move(x: Tensor, delta: Tensor, box: Box) -> Tensor:
    """x + delta, clamped to the box; its derivative in x and in delta is the identity (BPDA)."""
    aim = x + delta
    return aim + (aim.clamp(box.low, box.high) - aim).detach()


def span(box: Box) -> float:
    """The width of the box, the unit of a defence's budgets."""
    return box.high - box.low
