"""What an attacker of the texts can do to class scores: the best name of each class, or the best list of texts.

Attacks and the judge of an input see the logits after that choice, so an attack on them is one on text and input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core.stats.metrics import margin


class Choice(ABC):
    """How an attacker chooses a text for each class, by example."""

    @abstractmethod
    def pick(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, K) scores of all texts, (B,) int64 labels -> (B, C) int64, the text of each class."""

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, K) scores, (B,) int64 labels -> (B, C) logits, differentiable in the scores."""
        return scores.gather(1, self.pick(scores.detach(), y))


@dataclass(frozen=True, eq=False)
class NameChoice(Choice):
    """The attacker chooses a name of each class, another list for each input: an upper bound of what names can do.

    The true class gets the name with the smallest score, another class that with the largest. The choice is exact,
    since each class's name is chosen by itself: an input is misclassified for some list of names iff it is for these
    extremes. The formula is rlbench's own, and compared with all lists by brute force.

    Attributes:
        owners: (K,) int64, the class of each text, in ascending order; the first of each class is its own name.
    """

    owners: Tensor

    def pick(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, K) scores, (B,) int64 labels -> (B, C) int64, the text of each class; of equal ones any."""
        sizes, found, start = self.owners.bincount().tolist(), list[Tensor](), 0
        for c, size in enumerate(sizes):
            own = scores[:, start : start + size]
            found.append(start + torch.where(y == c, own.argmin(1), own.argmax(1)))
            start += size
        return torch.stack(found, 1)


@dataclass(frozen=True)
class ListChoice(Choice):
    """The attacker chooses one of L lists of texts for all classes: the logits of the one with the smallest margin.

    Attributes:
        lists: L, such as one for each template; text l C + c is that of class c in list l.
    """

    lists: int

    def pick(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, L C) scores, (B,) int64 labels -> (B, C) int64, the texts of the chosen list."""
        flat = scores.reshape(len(scores) * self.lists, -1)
        worst = margin(flat, y.repeat_interleave(self.lists)).view(len(scores), self.lists).argmin(1)
        classes = flat.shape[1]
        return worst[:, None] * classes + torch.arange(classes, device=scores.device)


def choose_shared(scores: Tensor, y: Tensor, owners: Tensor, *, sweeps: int = 2) -> Tensor:
    """One list of names for all inputs, chosen greedily: each class in turn takes the name that breaks the most inputs.

    A greedy choice is no bound; report it on other inputs than those that chose it. Between names that break as many
    inputs, the one with the smallest mean margin is taken.

    Args:
        scores: (N, K) of all texts.
        y: (N,) int64 labels.
        owners: (K,) int64, the class of each text; the first of each class is its own name.
        sweeps: times that every class chooses.

    Returns:
        (C,) int64, the text of each class.
    """
    classes = int(owners.max()) + 1
    texts = [(owners == c).nonzero()[:, 0] for c in range(classes)]
    chosen = torch.stack([own[0] for own in texts])
    for c in list(range(classes)) * sweeps:
        z = scores[:, chosen]
        rest = torch.arange(classes) != c
        own = z.gather(1, y[:, None]).expand(-1, len(texts[c]))
        rivals = z.masked_fill(torch.nn.functional.one_hot(y, classes).bool(), -torch.inf)[:, rest].amax(1)[:, None]
        new = scores[:, texts[c]]
        is_own = (y == c)[:, None]
        m = torch.where(is_own, new - rivals, own - torch.maximum(rivals, new))
        right = (m > 0).sum(0)
        ties = (right == right.min()).nonzero()[:, 0]
        chosen[c] = texts[c][ties[m.mean(0)[ties].argmin()]]
    return chosen
