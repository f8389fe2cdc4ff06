"""What an attacker of text and input faces: the class scores after the best choice of names or of the template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core import Classifier
from rlbench.core.stats.metrics import margin

Choice = Callable[[Tensor, Tensor], Tensor]  # scores (B, K) of all texts, labels (B,) -> logits (B, C)


@dataclass(frozen=True, eq=False)
class NameChoice:
    """The attacker chooses a name of each class, another list for each input: an upper bound of what names can do.

    The logit of the true class is the smallest score of its names, that of another class the largest. The choice is
    exact, since each class's name is chosen by itself: an input is misclassified for some list of names iff it is for
    these extremes. The formula is rlbench's own, and compared with all lists by brute force.

    Attributes:
        owners: (K,) int64, the class of each text; the first of each class is its own name.
        only_own: whether the names of the other classes stay as they are: the attacker edits the true class alone.
    """

    owners: Tensor
    only_own: bool = False

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, K) scores, (B,) int64 labels -> (B, C) logits, differentiable in the scores."""
        classes = int(self.owners.max()) + 1
        index = self.owners.to(scores.device).expand(len(scores), -1)
        empty = scores.new_zeros(len(scores), classes)
        lowest = empty.scatter_reduce(1, index, scores, "amin", include_self=False)
        if self.only_own:
            first = (self.owners[:, None] == torch.arange(classes)).int().argmax(0)
            largest = scores[:, first.to(scores.device)]
        else:
            largest = empty.scatter_reduce(1, index, scores, "amax", include_self=False)
        own = torch.nn.functional.one_hot(y, classes).bool()
        return torch.where(own, lowest, largest)


@dataclass(frozen=True)
class TemplateChoice:
    """The attacker chooses one of T templates for all classes: the logits of the one with the smallest margin.

    Attributes:
        templates: T; text t C + c is class c in template t.
    """

    templates: int

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """(B, T C) scores, (B,) int64 labels -> (B, C) logits, differentiable in the scores."""
        logits = scores.view(len(scores), self.templates, -1)
        flat = logits.detach().flatten(0, 1)
        worst = margin(flat, y.repeat_interleave(self.templates)).view(len(scores), -1).argmin(1)
        return logits[torch.arange(len(scores), device=scores.device), worst]


@dataclass(frozen=True, eq=False)
class Joint:
    """A classifier whose texts the attacker chooses at every point: attacks and the judge use it like any other.

    Attributes:
        classifier: gives the scores (B, K) of all texts.
        y: (N,) int64 labels of the examples that `rows` count; more rows repeat them.
        choose: how scores become logits.
    """

    classifier: Classifier
    y: Tensor
    choose: Choice

    @property
    def batch_size(self) -> int:
        """The largest call that fits in memory."""
        return self.classifier.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) logits; rows (B,): indices of their examples, by default 0..B-1."""
        rows = torch.arange(len(x)) if rows is None else rows
        return self.choose(self.classifier(x, rows=rows), self.y[rows.to(self.y.device) % len(self.y)])


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
