"""Loads inputs in a thread of its own, so that an encoder does not wait for pictures to be decoded or corrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Protocol

import torch

from rlbench.engine.block.bench import Bench
from rlbench.engine.cells.groups import Group


class Span(Protocol):
    """Examples start..stop-1 under a group."""

    @property
    def group(self) -> Group: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


@contextmanager
def prefetch(spans: Sequence[tuple[Bench, Span]]) -> Iterator[None]:
    """Loads the inputs of spans, in their order, while the block runs, which then finds them in memory or in the cache.

    The block ends when they are loaded. Inputs are made by one thread at a time, so the numbers are the same.
    """
    if not spans:
        yield
        return
    thread = Thread(target=_load, args=(spans, torch.get_num_threads()), daemon=True)
    thread.start()
    yield
    thread.join()


def _load(spans: Sequence[tuple[Bench, Span]], threads: int) -> None:
    torch.set_num_threads(threads)
    with suppress(Exception):  # the job itself meets the same error
        for bench, span in spans:
            bench.inputs.prepare(span.group.corrupted, span.start, span.stop)
