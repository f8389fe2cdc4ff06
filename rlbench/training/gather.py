"""Gathering of the rows of all processes, for losses that compare the rows of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        every = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(every, rows.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sums the gradients of all processes, since the rows enter every process's loss."""
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def all_gather(rows: Tensor) -> Tensor:
    """Concatenates rows (B, ...) of P processes into (P B, ...), in their order; differentiable."""
    every: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return every
