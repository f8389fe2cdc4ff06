"""A fusion of a user with one mistake is refused by one line that says what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlbench.core import registry
from rlbench.core.errors import RLBenchError
from rlbench.encoders.fusion_contract import check_fusion

CLASSES = 4


@dataclass(frozen=True)
class Rule:
    """A fusion by a function of (M, N, C)."""

    fuse: Callable[[Tensor], object]
    least: int = 1


def _vote(z: Tensor) -> Tensor:
    return one_hot(z.argmax(2), CLASSES).float().mean(0)


@pytest.mark.parametrize("name", registry.names("fusion"))
def test_the_bundled_fusions_keep_it(name: str) -> None:
    fusion = registry.make("fusion", name)
    check_fusion(fusion, name, (fusion.least, 5), CLASSES)


@pytest.mark.parametrize(
    ("fuse", "said"),
    [
        (lambda z: z[..., 0], r"on 3 sensors returned \(3, 7\) float32; it must return a float tensor \(7, 4\)"),
        (lambda z: torch.cat([z.mean(0), z[0, :, :1]], 1), r"returned \(7, 5\) float32; it must return a float"),
        (lambda z: z.mean(0, keepdim=True), r"returned \(1, 7, 4\) float32; it must return a float tensor \(7, 4\)"),
        (lambda z: None, "returned NoneType; it must return"),
        (lambda z: z.detach().numpy().mean(0), "returned numpy .* float32; it must return"),
        (lambda z: (100 * z.mean(0)).long(), "int64; it must return a float tensor"),
        (lambda z: z.mean(0).detach(), "has no gradient in the sensors' logits, which attacks follow; give it one by"),
        (_vote, "has no gradient in the sensors' logits"),
        (lambda z: z.mean(0) / 0, "returned values that are not finite for finite logits"),
        (lambda z: (z - z).sum(0).sqrt(), "has a gradient that is not finite"),
        (lambda z: z[0] + z[3], r"on 3 sensors raised IndexError at test_fusion_contract.py:\d+: index 3"),
    ],
)
def test_a_mistake_is_one_line(fuse: Callable[[Tensor], object], said: str) -> None:
    with pytest.raises(RLBenchError, match=f"^fusion 'own' .*{said}") as caught:
        check_fusion(Rule(fuse), "own", (3,), CLASSES)
    assert "\n" not in str(caught.value)


def test_a_fusion_is_tried_with_the_sensors_that_are_left() -> None:
    rule = Rule(lambda z: z.mean(0) if len(z) > 2 else z.mean(0) * float("nan"))
    check_fusion(rule, "own", (3,), CLASSES)
    with pytest.raises(RLBenchError, match="fusion 'own' on 2 sensors returned values that are not finite"):
        check_fusion(rule, "own", (3, 2), CLASSES)


def test_a_vote_needs_no_gradient_where_attacks_follow_none() -> None:
    check_fusion(Rule(_vote), "own", (3, 2), CLASSES, graph=False)
