"""The watch for the collapse of training with an adversary of one step.

Such training can collapse: it comes to resist that one step alone, and PGD breaks it (catastrophic overfitting: Wong et
al., 2020, https://arxiv.org/abs/2001.03994). The loss is then no longer linear along the step: the gradients at its two
ends lose their agreement (Andriushchenko and Flammarion, 2020, https://arxiv.org/abs/2007.02617).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from rlbench.core.files import LOG

DECAY = 0.95  # of the moving mean
LOW = 0.25  # a moving mean below this share of the highest one is a collapse; this project's choice
SETTLED = 20  # the steps before the first warning


class CollapseWatch:
    """Compares the gradients of a run at the two ends of the adversary's step.

    The gradient at the start is the adversary's own. The gradient at the end comes with the backward pass of training,
    so that the watch costs no pass; it is that of the whole loss of training in x', of which the adversary may raise
    only some terms.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.mean, self.highest, self.steps = 0.0, 0.0, 0
        self.warned = False

    def add(self, gradient: Tensor, x_adv: Tensor) -> Tensor:
        """Remembers the gradient (B, *shape) at the start; returns x' (B, *shape), which collects its own gradient."""
        end = x_adv.detach().requires_grad_()
        self.pairs.append((gradient, end))
        return end

    def clear(self) -> None:
        """Forgets the pairs of a step that is repeated."""
        self.pairs.clear()

    def measure(self) -> float | None:
        """Returns the mean cosine of the gradients of a step's rows, and forgets them; None if there are none.

        Call it after the backward passes of the step.
        """
        total, rows = 0.0, 0
        for start, end in self.pairs:
            if end.grad is not None:
                total += float(cosine_similarity(start.flatten(1), end.grad.flatten(1), dim=1).sum())
                rows += len(end)
        self.pairs.clear()
        return total / rows if rows else None

    def follow(self, cosine: float, step: int, name: str) -> None:
        """Follows the cosine of a step, and warns once if it has fallen.

        Args:
            cosine: the mean over the rows of the step, in [-1, 1].
            step: the number of the step, from 1.
            name: what is trained, for the message.
        """
        self.steps += 1
        self.mean = cosine if self.steps == 1 else DECAY * self.mean + (1 - DECAY) * cosine
        if self.steps < SETTLED:
            return
        self.highest = max(self.highest, self.mean)
        if not self.warned and self.mean < LOW * self.highest:
            self.warned = True
            LOG.warning(
                "%s: training with one adversarial step may have collapsed at step %d: the cosine of its gradients "
                "fell from %.2f to %.2f; if the robust validation accuracy fell too, lower lr, or train with "
                "adversary=pgd and attack_steps=3",
                name,
                step,
                self.highest,
                self.mean,
            )
