"""Square Attack: random search, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.incumbents import Incumbents
from rlbench.attacks.search.square_windows import bump, place, sides, tiles, window
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.core.threat import per_row, project, rows_norm

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries; after each of these, p is halved
AHEAD = 50  # queries for which an example draws its random numbers at once


@register("attack", "square")
@dataclass(frozen=True, kw_only=True)
class Square:
    """Square Attack: a random search that lowers the margin window by window; needs no gradient.

    Andriushchenko et al., 2020, https://arxiv.org/abs/1912.00049; compared with pyautoattack. Each query changes a
    window that covers a share p of every channel. In Linf, each channel of the window becomes +eps or -eps. In L2,
    another window is cleared, and its norm goes to a bump in this one. The change stays if the margin falls. The window
    has the proportions of the box: a square of a square picture, a rectangle of a spectrogram, a segment of a waveform,
    a block of frames and pixels of a clip. As in AutoAttack, p follows the schedule for 10,000 queries unless `rescale`
    is set.

    Attributes:
        queries: forward passes after the first one, at least 1.
        p_init: p at the start, in (0, 1].
        rescale: whether to fit the schedule of p to `queries`.
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = False
    min_classes: ClassVar[int] = 2
    needs: ClassVar[Knowledge] = "score"

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise FieldError(f"square: queries is {self.queries}; it must be at least 1")
        if not 0 < self.p_init <= 1:
            raise FieldError(f"square: p_init is {self.p_init}; it must be above 0 and at most 1")

    def loss_used(self, n_classes: int) -> str:
        """The function that ranks queries."""
        return "margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        return self.queries + 1, 0

    def share(self, query: Tensor) -> Tensor:
        """The share p of the coordinates that a query changes.

        Args:
            query: (R,) int64 numbers of queries, from 0.

        Returns:
            (R,) float32, at most p_init.
        """
        at = query * 10_000 // self.queries if self.rescale else query
        return self.p_init / 2 ** (at[:, None] > torch.tensor(HALVINGS, device=query.device)).sum(1)

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        best, numbers = Incumbents(classifier, x, y), _Numbers(streams, x)
        if ball.radius == 0 or not len(x):
            return x
        start, step = (_stripes, _paint) if ball.norm == "linf" else (_grid, _move)
        best.offer(best.rows, project(x + start(numbers, x, ball.radius), x, ball))
        query = torch.zeros_like(y)
        # When an example is broken, another one takes its place, so the batch stays full.
        while len(rows := (best.alive & (query < self.queries)).nonzero()[:, 0][: classifier.batch_size]):
            delta = best.x_adv[rows] - x[rows]
            p, u = self.share(query[rows]), numbers.take(rows, query[rows])
            moved = step(_with_channels(delta), p, u, ball.radius).view_as(delta)
            best.offer(rows, project(x[rows] + moved, x[rows], ball))
            query[rows] += 1
        return best.x_adv


class _Numbers:
    """Uniform numbers in [0, 1) from each example's own generator.

    A query of a box with C channels and k further axes takes 2k + 1 + C numbers.
    """

    def __init__(self, streams: Streams, x: Tensor) -> None:
        shape = _with_channels(x).shape
        self.generators = streams.generators()
        self.ahead = torch.empty(len(x), AHEAD, 2 * (len(shape) - 2) + 1 + shape[1], device=x.device)

    def draw(self, shape: tuple[int, ...], rows: list[int]) -> Tensor:
        """Draws (R, *shape) numbers for the R examples `rows`."""
        drawn = [self.generators[row].random(shape, dtype=np.float32) for row in rows]
        return torch.from_numpy(np.stack(drawn)).to(self.ahead)

    def take(self, rows: Tensor, query: Tensor) -> Tensor:
        """The numbers (R, 2k + 1 + C) of the queries (R,) of the examples `rows` (R,)."""
        if len(due := rows[query % AHEAD == 0]):
            self.ahead[due] = self.draw(tuple(self.ahead.shape[1:]), due.tolist())
        return self.ahead[rows, query % AHEAD]


def _with_channels(x: Tensor) -> Tensor:
    """Adds a channel to a box of one axis, so that the shape is (B, C, n_1, ..., n_k)."""
    return x if x.dim() > 2 else x[:, None]


def _signs(u: Tensor) -> Tensor:
    """Maps uniform numbers in [0, 1) to -1 or +1."""
    return 2.0 * (u >= 0.5) - 1


def _stripes(numbers: _Numbers, x: Tensor, eps: float) -> Tensor:
    """The start in Linf, (B, *shape): +eps or -eps per channel and index of the last axis (column, frame, sample)."""
    shape = _with_channels(x).shape[1:]
    u = numbers.draw((shape[0], *[1] * (len(shape) - 2), shape[-1]), list(range(len(x))))
    return (eps * _signs(u)).expand(-1, *shape).reshape(x.shape)


def _paint(delta: Tensor, p: Tensor, u: Tensor, eps: float) -> Tensor:
    """The step in Linf: each channel of a window becomes +eps or -eps.

    Args:
        delta: (R, C, n_1, ..., n_k) perturbations.
        p: (R,) share of a channel that the window covers.
        u: (R, 2k + 1 + C) uniform numbers in [0, 1).
        eps: radius of the ball.
    """
    sizes, channels = tuple(delta.shape[2:]), delta.shape[1]
    k, lengths = len(sizes), sides(p, sizes)
    inside = window(place(u[:, :k], lengths, sizes), lengths, sizes)
    colour = eps * _signs(u[:, -channels:]).view(*delta.shape[:2], *[1] * k)
    return torch.where(inside, colour, delta)


def _grid(numbers: _Numbers, x: Tensor, eps: float) -> Tensor:
    """The start in L2, (B, *shape) of norm eps: tiles of bumps with random signs and splits."""
    delta = torch.zeros_like(_with_channels(x))
    sizes, channels = tuple(delta.shape[2:]), delta.shape[1]
    starts, lengths = tiles(sizes)
    u = numbers.draw((len(starts), channels + 1), list(range(len(x))))
    here = [torch.tensor([one], device=x.device).expand(len(x), -1) for one in (*starts, lengths)]
    for tile, first in enumerate(here[:-1]):
        split = (u[:, tile, -1] * len(sizes)).long()
        sign = _signs(u[:, tile, :channels]).view(*delta.shape[:2], *[1] * len(sizes))
        delta += sign * bump(first, here[-1], split, sizes)
    return (delta * per_row(eps / rows_norm(delta, "l2").clamp_min(1e-20), delta)).view_as(x)


def _move(delta: Tensor, p: Tensor, u: Tensor, eps: float) -> Tensor:
    """The step in L2, algorithm 3: a bump in one window takes the norm of another window and the unused norm.

    Args:
        delta: (R, C, n_1, ..., n_k) perturbations.
        p: (R,) share of a channel that each window covers.
        u: (R, 2k + 1 + C) uniform numbers in [0, 1).
        eps: radius of the ball.
    """
    sizes, channels = tuple(delta.shape[2:]), delta.shape[1]
    k, lengths = len(sizes), sides(p, sizes, least=3)
    first = place(u[:, :k], lengths, sizes)
    one = window(first, lengths, sizes)
    other = window(place(u[:, k : 2 * k], lengths, sizes), lengths, sizes)
    sign = _signs(u[:, -channels:]).view(*delta.shape[:2], *[1] * k)
    eta = sign * bump(first, lengths, (u[:, 2 * k] * k).long(), sizes)
    temporary = eta + _unit(delta * one)
    unused = per_row((eps**2 - rows_norm(delta, "l2") ** 2).clamp_min(0.0), delta) / channels
    available = (_channel_norm(delta * (one | other)) ** 2 + unused).sqrt()
    delta = torch.where(one, _unit(temporary) * available, torch.where(other, 0.0, delta))
    return delta * per_row(eps / rows_norm(delta, "l2").clamp_min(1e-20), delta)


def _channel_norm(delta: Tensor) -> Tensor:
    """The L2 norm of every channel, (R, C, 1, ..., 1)."""
    length = rows_norm(delta.flatten(0, 1), "l2")
    return length.view(*delta.shape[:2], *[1] * (delta.dim() - 2))


def _unit(delta: Tensor) -> Tensor:
    """Divides every channel by its L2 norm; a channel of zeros does not change."""
    length = _channel_norm(delta).clamp_min(1e-12)
    return delta / length
