"""The batch size that fits a GPU: from one example's pass. Workers halve it where memory runs out all the same.

Accuracies do not depend on it. On a CPU it is DEFAULT.
"""

from __future__ import annotations

import torch

from rlbench.core.errors import FieldError, quote
from rlbench.engine.block.bench import Bench

DEFAULT = 64
LARGEST = 512
PROBE = (2, 8)  # batches that are compared
ROOM = 0.7  # share of the free memory that a batch may take; the attack's own tensors need some, too


def parse_batch_size(text: object) -> int | None:
    """The number, or None for "auto". Raises: FieldError."""
    if text == "auto":
        return None
    if isinstance(text, bool) or not isinstance(text, int) or text < 1:
        raise FieldError(f"batch_size is {quote(text)}; it must be at least 1, or auto")
    return text


def choose_batch_size(bench: Bench) -> int:
    """The batch size for a bench: on a GPU what fits its memory, elsewhere DEFAULT."""
    if not bench.device.startswith("cuda") or bench.is_metered:
        return DEFAULT
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(bench.device)[0]
    try:
        small, large = (_measure_pass(bench, size) for size in PROBE)
    except torch.OutOfMemoryError:
        return 1
    finally:
        torch.cuda.empty_cache()
    return largest_batch(free, (large - small) / (PROBE[1] - PROBE[0]))


def largest_batch(free: float, each: float) -> int:
    """The largest power of two up to LARGEST whose passes fit.

    Args:
        free: bytes of free memory.
        each: bytes of one example's pass.
    """
    size = LARGEST
    while size > 1 and size * max(each, 1.0) > ROOM * free:
        size //= 2
    return size


def _measure_pass(bench: Bench, size: int) -> int:
    """The peak bytes of a forward and backward pass of `size` examples, over those before it."""
    x = torch.full((size, *bench.box.shape), (bench.box.low + bench.box.high) / 2, device=bench.device)
    x.requires_grad_(bench.knowledge == "white-box")
    before = torch.cuda.memory_allocated(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    logits = bench.classifier(x)
    if logits.requires_grad:
        torch.autograd.grad(logits.sum(), x)
    return torch.cuda.max_memory_allocated(bench.device) - before
