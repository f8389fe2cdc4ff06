"""Which random encoders share their draws among the rows of a call."""

from rlbench.core.registry import make
from rlbench.encoders.defences.classifier_defence import Fronted
from rlbench.encoders.fused import SensorEncoder
from rlbench.encoders.linear import Linear


class Random(Linear):
    """An encoder that draws for each row."""

    traits = frozenset({"randomised"})


def test_draws_are_shared_only_where_every_random_part_draws_once_per_call() -> None:
    views = make("defence", "view-mean")
    fronted = Fronted(Linear(), views)
    assert Fronted(Random(), views).shared_draws == 0
    assert SensorEncoder({"image": fronted, "thermal": Linear()}).shared_draws == 5
    assert SensorEncoder({"image": fronted, "thermal": Random()}).shared_draws == 0
    assert SensorEncoder({"image": Linear()}).shared_draws == 0
