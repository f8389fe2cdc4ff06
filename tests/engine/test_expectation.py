"""Expectation over randomness: repeatable, independent of the batch, with the gradient of the mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rlbench.attacks.pgd import PGD
from rlbench.core import Ball, Clean
from rlbench.core.errors import FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.engine.attack.eot import Expectation
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare
from rlbench.engine.cells.keys import cell_key


class _Noisy(nn.Module):
    """Affine, under input noise and dropout that draw from torch's global generator at every call."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.w = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        noisy = x + self.noise * torch.randn_like(x)
        return nn.functional.dropout(noisy, 0.2, training=True) @ self.w


X = torch.rand(7, 12, generator=torch.Generator().manual_seed(1))


def test_it_is_reproducible_in_any_batch_and_leaves_the_global_generator() -> None:
    mean = Expectation(classifier=Meter(_Noisy(0.3), 7), draws=5)
    before = torch.get_rng_state()
    whole = mean(X)
    assert torch.equal(mean(X), whole)
    order = torch.tensor([4, 0, 6])
    torch.testing.assert_close(mean(X[order], rows=order), whole[order])
    assert torch.equal(torch.get_rng_state(), before)
    other = Expectation(classifier=Meter(_Noisy(0.3), 7), draws=5, seed=1)
    assert not torch.allclose(other(X), whole)
    assert mean(X[:0]).shape == (0, 4)


def test_many_draws_come_near_the_closed_form() -> None:
    classify = _Noisy(0.3)
    mean = Expectation(classifier=Meter(classify, 7), draws=200)
    x = X.clone().requires_grad_()
    logits = mean(x)
    assert (logits - X @ classify.w).abs().mean() < 0.12
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert (gradient - classify.w[:, 0]).abs().max() < 0.2 * classify.w[:, 0].abs().max()


def test_every_draw_is_a_pass_and_the_batch_leaves_room_for_them() -> None:
    meter = Meter(_Noisy(0.3), 7, batch_size=64)
    mean = Expectation(classifier=meter, draws=20)
    assert mean.batch_size == 3
    x = X.clone().requires_grad_()
    torch.autograd.grad(mean(x).sum(), x)
    assert meter.forwards.tolist() == meter.backwards.tolist() == [20] * 7


def test_noise_hides_the_gradient_and_the_expectation_finds_it() -> None:
    """Judged by other draws, an attack on the mean breaks more examples than one on single draws."""
    classify = _Noisy(1.0)
    x = torch.rand(16, 12, generator=torch.Generator().manual_seed(2))
    y, ball = (x @ classify.w).argmax(1), Ball("linf", 0.15, -10.0, 10.0)
    streams = ExampleStreams(0, tuple(map(str, range(16))), "")
    judging = Expectation(classifier=Meter(classify, 16), draws=80, seed=9)
    right = (judging(x).argmax(1) == y).nonzero()[:, 0]
    left = []
    for draws in (1, 20):
        seen = Expectation(classifier=Meter(classify, 16), draws=draws)
        x_adv = PGD(steps=5)(seen, x[right], y[right], ball, streams.take(right.tolist()))
        left.append(int(judge(judging, x_adv, x[right], y[right], ball).correct.sum()))
    assert left[1] < left[0]


def test_zero_draws_are_refused() -> None:
    with pytest.raises(FieldError, match="draws is 0"):
        Expectation(classifier=Meter(_Noisy(0.1), 7), draws=0)


def test_the_seed_of_the_draws_enters_the_key_of_clean_cells() -> None:
    """Another seed draws other numbers for clean inputs, too, so that stored answers are those of other draws."""
    suite = load_suite("smoke")

    def key(model: str, seed: int) -> str:
        seeded = replace(suite, seed=seed)
        return cell_key(prepare(seeded, model).subject(), seeded, Clean())

    assert key("linear", 0) == key("linear", 1)
    assert key("linear+view-mean", 0) != key("linear+view-mean", 1)
