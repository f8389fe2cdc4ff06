"""Which meter counts the passes of a bench's classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from rlbench.encoders.fused import Fused
from rlbench.encoders.retrieval import Retriever
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.gallery import Ranked
from rlbench.engine.block.sensors import FusedMeter
from rlbench.engine.block.texts import TextMeter


def choose_meter(bench: Bench, labels: Tensor) -> Callable[..., Meter]:
    """Makes meters of n examples with these labels (n,); the arguments are n and the options of `Meter`."""
    head = bench.classifier
    if bench.texts is not None:
        return partial(TextMeter, head, bench.texts, labels)
    if isinstance(head, Fused) and not bench.randomised:  # known logits would be a single draw
        return partial(FusedMeter, head)
    return partial(Ranked, head, labels) if isinstance(head, Retriever) else partial(Meter, head)
