"""Adapts classifiers to attack libraries, which expect pictures in [0, 1], a module with a device, and a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlbench.core import Ball, Classifier, Streams
from rlbench.core.seeds import seed_globals
from rlbench.core.threat import project


def picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape (C, H, W) in which a library sees a box of this shape.

    The frames of a clip become channels. A waveform is cut into equal rows, so that the picture is as nearly square as
    possible.
    """
    if len(shape) >= 3:
        *channels, h, w = shape
        return int(torch.tensor(channels).prod()), h, w
    samples = shape[-1]
    rows = max(r for r in range(1, int(samples**0.5) + 1) if samples % r == 0)
    return 1, rows, samples // rows


class UnitBox(nn.Module):
    """Presents a classifier of inputs in a box [low, high] as one of pictures in [0, 1].

    Args:
        classifier: the classifier of the box.
        x: (N, *shape) the examples to attack, in the box.
        ball: the ball around each example, in box units.

    Attributes:
        eps: radius of the ball in [0, 1] units.
        shape: shape of an example.
        rows: (R,) int64, the examples that are attacked now; passes are counted for these.
    """

    def __init__(self, classifier: Classifier, x: Tensor, ball: Ball) -> None:
        super().__init__()
        # In a tuple: otherwise a classifier that is a module becomes a submodule, whose mode libraries change.
        self._classifier = (classifier,)
        self.low, self.range = ball.low, ball.high - ball.low
        self.eps = ball.radius / self.range
        self.shape = tuple(x.shape[1:])
        self.rows = torch.arange(len(x), device=x.device)
        self.device = nn.Parameter(torch.empty(0, device=x.device), requires_grad=False)  # tells libraries the device
        self.eval()

    def inward(self, x: Tensor) -> Tensor:
        """Maps x (B, *shape) in the box to pictures (B, C, H, W) in [0, 1]."""
        return ((x - self.low) / self.range).clamp(0.0, 1.0).reshape(-1, *picture(self.shape))

    def outward(self, u: Tensor) -> Tensor:
        """Maps pictures u (B, C, H, W) in [0, 1] to (B, *shape) in the box; inverts `inward` up to rounding."""
        return (self.low + self.range * u).reshape(-1, *self.shape)

    def forward(self, u: Tensor) -> Tensor:
        """Classifies pictures u (B, C, H, W); returns (B, classes) logits."""
        # A library may leave out broken examples, or pass several copies of its only example.
        rows = self.rows[torch.arange(len(u), device=self.rows.device) % len(self.rows)]
        return self._classifier[0](self.outward(u), rows=rows)


def one_by_one(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    streams: Streams,
    run: Callable[[UnitBox, Tensor, Tensor, int], Tensor],
) -> Tensor:
    """Runs a library's attack on one example at a time, and projects its results to the balls.

    Libraries seed and draw from torch's global generator once per batch, and stop and scale by the whole batch. When
    examples run alone, each with a seed from its own stream, results depend on neither batch size nor order. The passes
    stay the same, but small batches take more time.

    Args:
        classifier: the classifier of the box.
        x: (B, *shape) examples in the box.
        y: (B,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.
        run: the library's attack: (unit box, picture (1, C, H, W) in [0, 1], label (1,), seed) -> (1, C, H, W).

    Returns:
        x_adv like x, in the balls.
    """
    unit, results = UnitBox(classifier, x, ball), [x[:0]]
    for row, generator in enumerate(streams.generators() if ball.radius > 0 else ()):
        own, seed = x[row : row + 1], int(generator.integers(2**31))
        unit.rows = torch.tensor([row], device=x.device)
        with seed_globals(seed, x.device), torch.enable_grad():
            found = run(unit, unit.inward(own), y[row : row + 1], seed)
        results.append(project(unit.outward(found.detach().to(x)), own, ball))
    return torch.cat(results) if ball.radius > 0 else x
