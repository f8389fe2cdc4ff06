"""Smaller parts of micro-batches, for a step that does not fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from rlbench.core.errors import RLBenchError
from rlbench.core.files import LOG
from rlbench.training.data import MicroBatch

Streams = Sequence[Sequence[MicroBatch]]  # of every stream, its micro-batches of a step


def split_batches(streams: Streams, pieces: int) -> list[list[MicroBatch]]:
    """Each micro-batch in `pieces` nearly equal parts.

    Args:
        streams: the micro-batches of a step.
        pieces: at most the rows of the smallest micro-batch.

    Returns:
        The parts in their order; each has a micro-batch of every stream.
    """
    together = zip(*streams, strict=True)
    return [list(parts) for micro in together for parts in zip(*(_split(m, pieces) for m in micro), strict=True)]


def _split(micro: MicroBatch, pieces: int) -> list[MicroBatch]:
    if pieces == 1:
        return [micro]
    parts = zip(*(torch.tensor_split(value, pieces) for value in vars(micro).values()), strict=True)
    return [replace(micro, **dict(zip(vars(micro), part, strict=True))) for part in parts]


def count_rows(parts: Sequence[MicroBatch]) -> int:
    """The rows of all streams of a part."""
    return sum(len(part.y) for part in parts)


def double_pieces(streams: Streams, pieces: int, processes: int) -> int:
    """Twice as many pieces, after memory ran out.

    Args:
        streams: the micro-batches of the step that did not fit.
        pieces: the number so far.
        processes: the number of processes that train together.

    Raises:
        RLBenchError: there are too few rows, or several processes, which would have to agree.
    """
    rows = min(len(micro.y) for stream in streams for micro in stream)
    if processes > 1 or 2 * pieces > rows:
        raise RLBenchError(
            f"memory ran out with {rows / pieces:.0f} rows at a time; give a larger accumulate, precision=bf16 or "
            "checkpointing=true"
        )
    LOG.warning("memory ran out; each micro-batch is taken in %d parts from now on, with the same batch", 2 * pieces)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return 2 * pieces
