"""A classifier on some of its examples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core import Classifier


@dataclass(frozen=True)
class ClassifierView:
    """A classifier as an attack on some of its examples sees it.

    Attributes:
        classifier: the classifier of all examples.
        examples: (R,) int64 indices of this view's examples among all.
    """

    classifier: Classifier
    examples: Tensor

    @property
    def batch_size(self) -> int:
        return self.classifier.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) logits; rows (B,): indices into `examples`, by default 0..R-1."""
        return self.classifier(x, self.examples if rows is None else self.examples[rows.to(self.examples.device)])
