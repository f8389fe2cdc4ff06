"""Balls: projections lie inside, are nearest points and idempotent; violations are found."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbench.core import Ball, Box, Threat
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import ball_of, contains, distance, project, rows_norm, sample, violation

BOXES = [(0.0, 1.0), (-1.0, 1.0), (-1.3, 1.5), (0.0, 255.0)]


@given(
    norm=st.sampled_from(["linf", "l2", "l0"]),
    box=st.sampled_from(BOXES),
    eps=st.fractions(0, 2),
    seed=st.integers(0, 2**31),
    far=st.floats(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_projected_and_sampled_points_are_in_the_ball(norm, box, eps, seed, far) -> None:
    low, high = box
    torch.manual_seed(seed)
    x = low + (high - low) * torch.rand(3, 2, 5, 4)
    eps = Fraction(round(10 * eps)) if norm == "l0" else eps
    ball = ball_of(Threat(norm, eps), Box(shape=(2, 5, 4), low=low, high=high))
    moved = project(x + far * torch.randn_like(x), x, ball)
    assert violation(moved, x, ball) is None
    assert violation(sample(x, ball, ExampleStreams(seed, ("a", "b", "c"))), x, ball) is None
    assert torch.allclose(project(moved, x, ball), moved, rtol=0, atol=1e-6 * (high - low))


@pytest.mark.parametrize(("size", "low", "high", "eps"), [(3 * 224**2, 0.0, 1.0, 1e-4), (2**20, -2.1, 2.6, 2.35)])
def test_rounding_does_not_put_a_large_point_outside_a_small_l2_ball(size, low, high, eps) -> None:
    """Half a rounding error of each of many coordinates is more than the radius allows."""
    torch.manual_seed(0)
    x, ball = low + (high - low) * torch.rand(2, size), Ball("l2", eps, low, high)
    noise = torch.randn_like(x)
    for step in (noise, noise.sign()):
        moved = project(x + step, x, ball)
        assert violation(moved, x, ball) is None
        assert distance(moved, x, "l2").min() > 0.9 * eps


def test_a_ball_of_radius_zero_is_the_point_itself() -> None:
    x = torch.rand(4, 3)
    for norm in ("linf", "l2", "l0"):
        assert torch.equal(project(torch.randn(4, 3), x, Ball(norm, 0.0, 0.0, 1.0)), x)


def test_an_eps_quoted_for_the_unit_box_scales_with_the_box() -> None:
    ball = ball_of(Threat("linf", Fraction(4, 255)), Box(shape=(1,), low=-1.0, high=1.0))
    assert ball.radius == pytest.approx(8 / 255)


def test_projection_is_the_nearest_point() -> None:
    x = torch.tensor([[0.5, 0.5]])
    assert torch.allclose(
        project(x + torch.tensor([[0.3, 0.4]]), x, Ball("l2", 0.25, 0, 1)), x + 0.5 * torch.tensor([0.3, 0.4])
    )
    assert torch.allclose(project(torch.tensor([[2.0, 0.55]]), x, Ball("linf", 0.1, 0, 1)), torch.tensor([[0.6, 0.55]]))


def test_l0_counts_pixels_with_all_channels_and_keeps_the_largest_changes() -> None:
    x = torch.full((1, 3, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[0, :, 0, 0] = 0.6
    x_adv[0, 1, 0, 1], x_adv[0, 2, 1, 1] = 0.9, 0.51
    assert distance(x_adv, x, "l0").tolist() == [3]
    assert rows_norm(torch.tensor([[0.0, 1e-30, 2.0]]), "l0").tolist() == [2]
    kept = project(x_adv, x, Ball("l0", 2.0, 0.0, 1.0))
    assert kept[0, 2, 1, 1] == 0.5 and torch.equal(kept[0, :, 0], x_adv[0, :, 0])
    why = violation(x_adv, x, Ball("l0", 2.0, 0.0, 1.0))
    assert why is not None and "the l0 norm is 3; eps is 2" in why


def test_an_l0_ball_neither_scales_with_the_box_nor_lies_in_another_norms_ball() -> None:
    assert ball_of(Threat("l0", Fraction(4)), Box(shape=(1, 9), low=-1.0, high=1.0)).radius == 4
    assert not contains(Ball("l2", 9.0, 0, 1), Ball("l0", 1.0, 0, 1), 9)
    assert contains(Ball("l0", 2.0, 0, 1), Ball("l0", 1.0, 0, 1), 9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_samples_fill_the_ball(norm) -> None:
    """The mean norm is d / (d + 1) of the radius in a uniform L2 ball of d dimensions; 1/2 for an Linf coordinate."""
    ids = tuple(map(str, range(4000)))
    x = torch.full((4000, 3), 0.5)
    delta = sample(x, Ball(norm, 0.1, 0, 1), ExampleStreams(0, ids)) - x
    if norm == "l2":
        assert delta.norm(dim=1).mean() / 0.1 == pytest.approx(3 / 4, abs=0.01)
    else:
        assert delta.abs().mean() / 0.1 == pytest.approx(1 / 2, abs=0.01)
    assert delta.mean().abs() < 0.003


@pytest.mark.parametrize(
    ("x_adv", "text"),
    [
        (torch.full((2, 3), 0.62), "norm"),
        (torch.full((2, 3), float("nan")), "finite"),
        (torch.full((2, 3), 0.5).double(), "float64"),
        (torch.full((2, 4), 0.5), r"\(2, 4\)"),
        (torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 1.01]]), "box"),
    ],
)
def test_violations_are_named(x_adv, text) -> None:
    import re

    why = violation(x_adv, torch.full((2, 3), 0.5), Ball("linf", 0.1, 0.0, 1.0))
    assert why is not None and re.search(text, why)


def test_a_norm_just_over_eps_is_a_violation() -> None:
    x = torch.full((1, 1), 0.5, dtype=torch.float64)
    ball = Ball("linf", 0.1, 0.0, 1.0)
    assert violation(x + 0.1 * (1 + 5e-7), x, ball) is None
    assert violation(x + 0.1 * (1 + 5e-6), x, ball) is not None
    assert distance(x + 0.1, x, "linf").item() == pytest.approx(0.1)


def test_two_eps_have_two_texts() -> None:
    """The text enters keys: cells of equal text would share their results."""
    texts = ["0.5", "123.4567", "123.4568", "999.9999", "1000", "1234567", "1234568", "4/255", "1/3"]
    assert len({str(Threat("l2", Fraction(text))) for text in texts}) == len(texts)
    assert [str(Threat("l2", Fraction(text))) for text in ("0.1", "1", "1.25")] == ["l2 0.1", "l2 1", "l2 1.25"]
