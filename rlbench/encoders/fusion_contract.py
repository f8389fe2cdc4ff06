"""Checks that a fusion does what `core.Fusion` requires, so that a mistake is an error line and not a wrong number."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from rlbench.core import Fusion
from rlbench.core.errors import RLBenchError
from rlbench.core.seeds import generator
from rlbench.encoders.contract import call
from rlbench.encoders.outputs import describe

ROWS = 7  # random answers of each sensor; more than there are sensors
SPREAD = 10.0  # the standard deviation of their logits
REMEDY = "give it one by rlbench.encoders.fusions.rule.pass_gradient"


def check_fusion(fusion: Fusion, name: str, counts: Iterable[int], classes: int, *, graph: bool = True) -> None:
    """Fuses random logits once for each number of sensors that a suite leaves.

    Gradients that are zero (H7), and answers that change between calls or with the batch, are found during a run.

    Args:
        fusion: the rule.
        name: its name in suites.
        counts: the numbers of sensors.
        classes: the number of classes.
        graph: whether attacks follow gradients, as they do unless an encoder is a black box.

    Raises: RLBenchError: `fuse` raises, or its answer is not (N, C), not finite, or has no gradient.
    """
    for count in counts:
        source = f"fusion {name!r} on {count} sensor{'s' * (count > 1)}"
        drawn = generator("fusion", str(count)).standard_normal((count, ROWS, classes))
        logits = (SPREAD * torch.from_numpy(drawn).float()).requires_grad_()
        with torch.enable_grad():
            answer = call(partial(fusion.fuse, logits.clone()), source)
        value = _check_answer(answer, (ROWS, classes), source)
        if graph:
            _check_gradient(value, logits, source)


def _check_answer(answer: object, wanted: tuple[int, int], source: str) -> Tensor:
    if not isinstance(answer, Tensor) or answer.shape != wanted or not answer.is_floating_point():
        raise RLBenchError(f"{source} returned {describe(answer)}; it must return a float tensor {wanted}")
    if not answer.isfinite().all():
        raise RLBenchError(f"{source} returned values that are not finite for finite logits")
    return answer


def _check_gradient(answer: Tensor, logits: Tensor, source: str) -> None:
    found = None
    if answer.requires_grad:
        (found,) = call(lambda: torch.autograd.grad(answer.sum(), logits, allow_unused=True), f"{source}: its gradient")
    if found is None:
        raise RLBenchError(f"{source} has no gradient in the sensors' logits, which attacks follow; {REMEDY}")
    if not found.isfinite().all():
        raise RLBenchError(f"{source} has a gradient that is not finite; look for sqrt or division at 0")
