"""What attack libraries need: pictures in [0, 1], a module with a device, and a seed for every example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlbench.core import Ball, Classifier, Streams
from rlbench.core.seeds import seed_globals
from rlbench.core.threat import project


def picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape (C, H, W) in which a library sees a box.

    The frames of a clip become channels; a waveform is cut into equal rows, as many as come nearest to a square.
    """
    if len(shape) >= 3:
        *channels, h, w = shape
        return int(torch.tensor(channels).prod()), h, w
    samples = shape[-1]
    rows = max(r for r in range(1, int(samples**0.5) + 1) if samples % r == 0)
    return 1, rows, samples // rows


class UnitBox(nn.Module):
    """A classifier of pictures in [0, 1] over one of a box [low, high]; the eps of its balls is `eps`.

    Attributes:
        rows: the examples that are attacked now, for the harness's count of passes.
    """

    def __init__(self, classifier: Classifier, x: Tensor, ball: Ball) -> None:
        super().__init__()
        # In a tuple: a classifier that is a module must not become a part of this one, whose mode libraries change.
        self._classifier = (classifier,)
        self.low, self.range = ball.low, ball.high - ball.low
        self.eps = ball.radius / self.range
        self.shape = tuple(x.shape[1:])
        self.rows = torch.arange(len(x), device=x.device)
        self.device = nn.Parameter(torch.empty(0, device=x.device), requires_grad=False)  # libraries look for one
        self.eval()

    def inward(self, x: Tensor) -> Tensor:
        """(B, *shape) in the box -> (B, C, H, W) in [0, 1]."""
        return ((x - self.low) / self.range).clamp(0.0, 1.0).reshape(-1, *picture(self.shape))

    def outward(self, u: Tensor) -> Tensor:
        """The reverse, up to rounding."""
        return (self.low + self.range * u).reshape(-1, *self.shape)

    def forward(self, u: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes) logits."""
        # A library may leave out what it has broken, or ask for several copies of the one example at a time.
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
    """Runs a library's attack on one example at a time, and brings its answers back into the balls.

    Libraries draw from torch's global generator for the whole batch, stop and scale by the whole batch, and seed anew a
    batch. Alone, and seeded by its own stream, an example's answer depends on neither batch size nor order. This costs
    no passes, but the time of small batches.

    Args:
        run: (classifier, (1, C, H, W) in [0, 1], (1,) label, seed) -> (1, C, H, W).
    """
    unit, answers = UnitBox(classifier, x, ball), [x[:0]]
    for row, generator in enumerate(streams.generators() if ball.radius > 0 else ()):
        own, seed = x[row : row + 1], int(generator.integers(2**31))
        unit.rows = torch.tensor([row], device=x.device)
        with seed_globals(seed, x.device), torch.enable_grad():
            found = run(unit, unit.inward(own), y[row : row + 1], seed)
        answers.append(project(unit.outward(found.detach().to(x)), own, ball))
    return torch.cat(answers) if ball.radius > 0 else x
