"""The losses, as small functions of features in the papers' notation.

f: features of clean x, f_adv: of adversarial x', f0: of clean x by the frozen original, all (B, D) and not normalised;
n(f): unit norm; A: (C, D) unit anchors; y: (B,) int64; s: logit scale; p_s(f) = softmax(s n(f) A^T).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from rlbench.training.recipe import Recipe


def logits(f: Tensor, anchors: Tensor, s: float) -> Tensor:
    """s n(f) A^T: (B, D), (C, D) -> (B, C)."""
    return s * normalize(f, dim=-1) @ anchors.T


def infonce(f: Tensor, captions: Tensor, y: Tensor, s: float) -> Tensor:
    """Contrastive loss to the batch's captions, both ways; examples of one class are positives of each other.

    van den Oord et al., 2018, https://arxiv.org/abs/1807.03748, as in LanguageBind (Zhu et al., 2023,
    https://arxiv.org/abs/2310.01852); several positives as in Khosla et al., 2020, https://arxiv.org/abs/2004.11362.

    Args:
        captions: (B, D) unit text embeddings.
    """
    z = logits(f, captions, s)
    positive = (y[:, None] == y).float()
    target = positive / positive.sum(1, keepdim=True)
    return (cross_entropy(z, target) + cross_entropy(z.T, target)) / 2


def fare(f_adv: Tensor, f0: Tensor) -> Tensor:
    """|f(x') - f0(x)|^2 per example; Schlarmann et al., 2024, https://arxiv.org/abs/2402.12336, equation 3."""
    return (f_adv - f0).square().sum(1)


def tecoa(f_adv: Tensor, anchors: Tensor, y: Tensor, s: float) -> Tensor:
    """Cross-entropy of x' over the class anchors per example; Mao et al., 2023, https://arxiv.org/abs/2212.07016."""
    return cross_entropy(logits(f_adv, anchors, s), y, reduction="none")


def kl(target: Tensor, log_p: Tensor) -> Tensor:
    """KL(target || p) per row; target (B, C) log-probabilities, log_p (B, C) log-probabilities."""
    return (target.exp() * (target - log_p)).nan_to_num(0.0).sum(1)


def non_target(f: Tensor, anchors: Tensor, y: Tensor, tau: float) -> Tensor:
    """(B, C - 1) log-probabilities of p_tau(f) over the classes other than y."""
    z = logits(f, anchors, tau)
    others = torch.ones_like(z, dtype=torch.bool).scatter(1, y[:, None], False)
    return log_softmax(z[others].view(len(z), -1), dim=1)


@dataclass(frozen=True)
class Batch:
    """What the losses know of a batch: labels, anchors, captions (infonce) and f0 (fare, rlbind)."""

    y: Tensor
    anchors: Tensor
    captions: Tensor
    f0: Tensor


def rlbind_adversarial(f_adv: Tensor, f: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """The terms of `rlbind` that an adversary can raise, per example; f is not differentiated for the adversary."""
    z, z_adv = (logits(g, batch.anchors, recipe.logit_scale) for g in (f, f_adv))
    align = cross_entropy(z_adv, batch.y, reduction="none")
    consistent = kl(log_softmax(z, 1), log_softmax(z_adv, 1))
    return recipe.adversarial * align + recipe.consistency * consistent + recipe.distil * kept(f_adv, batch, recipe)


def kept(f: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """KL(q(f0) || q(f)) per example, where q is p_tau over the classes other than y."""
    q0, q = (non_target(g, batch.anchors, batch.y, recipe.tau) for g in (batch.f0, f))
    return kl(q0, q)


def rlbind(f: Tensor, f_adv: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """RLBind's second stage, from FARE's encoder: this project's own reading of https://arxiv.org/abs/2509.14383.

    The paper aligns clean and adversarial features with a text anchor, and class-wise distributions; its equation,
    weights and code were not available, so the form and the constants here are not the paper's:

        CE(p_s(f), y) + adversarial CE(p_s(f'), y) + consistency KL(p_s(f) || p_s(f'))
        + distil [KL(q(f0) || q(f)) + KL(q(f0) || q(f'))]

    where q is p_tau over the classes other than y: what the original says of them is kept, so that classes
    without labels keep their place.
    """
    clean = tecoa(f, batch.anchors, batch.y, recipe.logit_scale) + recipe.distil * kept(f, batch, recipe)
    return (clean + rlbind_adversarial(f_adv, f, batch, recipe)).mean()


@dataclass(frozen=True)
class Objective:
    """A method's loss and what its adversary ascends.

    Attributes:
        loss: (f, f_adv, batch) -> scalar.
        ascended: (f_adv, f, batch) -> (B,); None: the method sees no adversarial examples.
        clean: the loss looks at f.
    """

    loss: Callable[[Tensor, Tensor, Batch], Tensor]
    ascended: Callable[[Tensor, Tensor, Batch], Tensor] | None
    clean: bool


def objective(recipe: Recipe) -> Objective:
    """The objective that a recipe names."""
    s = recipe.logit_scale

    def ce(f_adv: Tensor, batch: Batch) -> Tensor:
        return tecoa(f_adv, batch.anchors, batch.y, s)

    table = {
        "infonce": Objective(lambda f, _, b: infonce(f, b.captions, b.y, s), None, True),
        "fare": Objective(lambda _, g, b: fare(g, b.f0).mean(), lambda g, _, b: fare(g, b.f0), False),
        "tecoa": Objective(lambda _, g, b: ce(g, b).mean(), lambda g, _, b: ce(g, b), False),
        "rlbind": Objective(
            lambda f, g, b: rlbind(f, g, b, recipe), lambda g, f, b: rlbind_adversarial(g, f, b, recipe), True
        ),
    }
    return table[recipe.objective]
