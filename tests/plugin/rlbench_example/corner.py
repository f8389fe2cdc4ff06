"""A random corner of the ball: an attack in ten lines."""

from dataclasses import dataclass

from torch import Tensor

from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import project


@register("attack", "corner")
@dataclass(frozen=True, kw_only=True)
class Corner:
    """A random corner of the ball; the best of a few tries."""

    tries: int = 3

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise FieldError(f"corner: tries is {self.tries}; it must be at least 1")

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        best = x
        for i in range(self.tries):
            corner = project(
                x + 1e6 * ball.radius * streams.child(f"try {i}").normal(x.shape[1:]).to(x).sign(), x, ball
            )
            fooled = classifier(corner).argmax(1) != y
            best = corner.where(fooled.view(-1, *[1] * (x.dim() - 1)), best)
        return best
