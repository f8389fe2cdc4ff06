"""Products of balls: one ball per sensor, of radius 0 for a sensor that is not attacked."""

from fractions import Fraction

import pytest
import torch

from rlbench.attacks.apgd import surface
from rlbench.attacks.search.rules import direction
from rlbench.core import Ball, Box, Threat
from rlbench.core.seeds import ExampleStreams
from rlbench.core.sensors import JointBox, joint_box
from rlbench.core.threat import ball_of, contains, distance, project, rows_norm, sample, scale_threat, violation

BOX: JointBox = joint_box({"image": Box(shape=(3, 2, 2)), "audio": Box(shape=(1, 5), low=-2.0, high=2.0)})
IMAGE, AUDIO = slice(0, 12), slice(12, 17)
STREAMS = ExampleStreams(0, tuple("abcdefgh"))
X = 0.5 + 0.2 * STREAMS.uniform((17,))


def _ball(norm: str, image: str, audio: str) -> Ball:
    return ball_of(Threat(norm, Fraction(image), ("image", "audio"), by_sensor=(Fraction(image), Fraction(audio))), BOX)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_of_a_product_lie_in_each_ball_and_reach_its_surface(norm) -> None:
    ball = _ball(norm, "0.1", "0.05")
    for point in (sample(X, ball, STREAMS), surface(X, ball, STREAMS), project(X + 1, X, ball)):
        assert violation(point, X, ball) is None
        assert not torch.equal(point[:, IMAGE], X[:, IMAGE]) and not torch.equal(point[:, AUDIO], X[:, AUDIO])
    far = project(X + 1, X, ball) - X
    assert torch.allclose(rows_norm(far[:, IMAGE], norm), torch.full((8,), 0.1), atol=1e-5)
    assert torch.allclose(rows_norm(far[:, AUDIO], norm), torch.full((8,), 0.05), atol=1e-5)
    assert torch.allclose(distance(X + far, X, norm, ball.spans), torch.full((8,), 0.1).double(), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sensor_that_is_not_attacked_keeps_its_input_bit_for_bit(norm) -> None:
    ball = ball_of(Threat(norm, Fraction("0.1"), ("audio",)), BOX)
    for point in (sample(X, ball, STREAMS), surface(X, ball, STREAMS), project(X + 1, X, ball)):
        assert torch.equal(point[:, IMAGE], X[:, IMAGE])
    moved = X.clone()
    moved[0, 3] += 1e-7
    assert str(violation(moved, X, ball)).startswith(f"the {norm} norm on image is ")


def test_each_ball_has_its_own_limit() -> None:
    ball = _ball("linf", "0.1", "0.05")
    moved = X.clone()
    moved[:, AUDIO] += 0.06
    assert violation(moved, X, ball) == "the linf norm on audio is 0.060000002; eps is 0.05"
    assert contains(ball, _ball("linf", "0.1", "0.04"), 17) and not contains(ball, _ball("linf", "0.01", "0.06"), 17)
    assert contains(_ball("l2", "0.4", "0.3"), _ball("linf", "0.1", "0.1"), 17)  # 0.1 sqrt(12), 0.1 sqrt(5)
    assert not contains(_ball("l2", "0.3", "0.3"), _ball("linf", "0.1", "0.1"), 17)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_are_in_proportion_to_the_radii(norm) -> None:
    step = direction(STREAMS.normal((17,)), _ball(norm, "0.2", "0.05"))
    assert torch.allclose(rows_norm(step[:, IMAGE], norm), torch.ones(8))
    assert torch.allclose(rows_norm(step[:, AUDIO], norm), torch.full((8,), 0.25))


def test_the_joint_box_splits_and_joins_in_each_sensors_units() -> None:
    inputs = {"image": torch.rand(4, 3, 2, 2), "audio": 4 * torch.rand(4, 1, 5) - 2}
    joint = BOX.join(inputs)
    assert joint.shape == (4, 17) and joint.min() >= 0 and joint.max() <= 1
    for sensor, x in inputs.items():
        assert torch.allclose(BOX.split(joint, sensor), x, atol=1e-6)


def test_a_threat_scales_with_all_its_radii() -> None:
    threat = Threat("l2", Fraction(2), ("image", "audio"), by_sensor=(Fraction(2), Fraction(1)))
    assert scale_threat(threat, Fraction(1, 2)).by_sensor == (Fraction(1), Fraction(1, 2))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-4.2, 3.1), (-1.7922619, 2.0749)])
def test_values_at_the_ends_of_a_sensors_box_keep_their_gradient(low, high) -> None:
    """low + (high - low) may exceed high by a rounding error, and a clamp has no gradient there."""
    box = joint_box({"image": Box(shape=(2, 2), low=low, high=high), "audio": Box(shape=(1, 3))})
    x = torch.tensor([[0.0, 1.0, 0.5, 1.0, 0.0, 1.0, 0.3]], requires_grad=True)
    image = box.split(x, "image")
    (gradient,) = torch.autograd.grad(image.sum(), x)
    assert torch.allclose(gradient[0, :4], torch.full((4,), high - low)) and not gradient[0, 4:].any()
    assert image.min() >= low and image.max() <= high
