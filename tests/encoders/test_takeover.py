"""The takeover certificate of a fused model: no input of one sensor changes the answer to a certified example."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Box, registry
from rlbench.core.errors import FieldError
from rlbench.core.stats.metrics import margin
from rlbench.encoders.fused import Fused, SensorEncoder
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.takeover import certify_takeover

SENSORS = ("image", "thermal", "depth", "video")
BOX = Box(shape=(4,), low=-1.0)


class Directions:
    """Embeds a vector as its direction, so that some input has any embedding."""

    boxes = dict.fromkeys(SENSORS, BOX)
    traits, logit_scale, sha256 = frozenset(), 5.0, {}

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return normalize(x, dim=1)


def _anchors() -> Tensor:
    return normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)


def _fused(fusion: str, encoder: object = None) -> Fused:
    one, anchors = encoder or Directions(), _anchors()
    heads = {sensor: ZeroShot(one, sensor, anchors) for sensor in SENSORS}  # type: ignore[arg-type]
    plugin = registry.make("fusion", fusion)
    return Fused(SensorEncoder(dict.fromkeys(SENSORS, one)), "image", anchors, heads=heads, fusion=plugin)  # type: ignore[arg-type]


def _examples(classifier: Fused, n: int = 60) -> tuple[Tensor, Tensor]:
    """Noisy inputs near the anchors of their labels, in the joint box."""
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    rows = {s: (0.5 * (_anchors()[y] + 0.5 * torch.randn(n, 4, generator=g))).clamp(-1, 1) for s in SENSORS}
    return classifier.box.join(rows), y


@pytest.mark.parametrize("fusion", ["sum", "mean", "median", "majority"])
def test_no_input_of_one_sensor_breaks_a_certified_example(fusion: str) -> None:
    classifier = _fused(fusion)
    x, y = _examples(classifier)
    certified = certify_takeover(classifier, x, y)
    safe, g = torch.ones(len(y), dtype=torch.bool), torch.Generator().manual_seed(2)
    rivals = (_anchors()[:, None] - _anchors()).flatten(0, 1)
    for liar in torch.cat([torch.randn(50, 4, generator=g), rivals[rivals.norm(dim=1) > 0.1]]):
        for start, stop in classifier.box.spans.values():
            changed = x.clone()
            changed[:, start:stop] = (0.5 * normalize(liar, dim=0) + 1) / 2  # box [-1, 1] as [0, 1]
            safe &= margin(classifier(changed), y) > 0
    assert 0 < int(certified.sum()) < len(y) and not (certified & ~safe).any()
    if fusion == "sum":
        assert torch.equal(certified, safe)


def test_a_missing_sensor_does_not_count() -> None:
    classifier = _fused("sum")
    x, y = _examples(classifier)
    two = certify_takeover(classifier.without(["depth", "video"]), x, y)
    assert int(two.sum()) < int(certify_takeover(classifier, x, y).sum())


class Defended(Directions):
    def answer(self, logits: Tensor) -> Tensor:
        return logits


def test_what_has_no_certificate_is_refused() -> None:
    x, y = _examples(_fused("sum"))
    with pytest.raises(FieldError, match="fusion Trimmed has no certificate; choose sum, mean, median or majority"):
        certify_takeover(_fused("trimmed"), x, y)
    with pytest.raises(FieldError, match="image: the certificate is for zero-shot logits of one embedding"):
        certify_takeover(_fused("sum", Defended()), x, y)
