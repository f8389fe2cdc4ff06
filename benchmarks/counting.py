"""Counts what a run costs: an encoder's forward and backward passes, its calls, and CPU time in and outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from typing import Any
from unittest import mock

from torch import Tensor


@dataclass
class Spent:
    """The cost of a run.

    Attributes:
        fb: forward passes with a backward pass, in examples.
        f: forward passes without one.
        calls: of the encoder.
        seconds: of CPU time.
        inside: CPU seconds in the encoder.
    """

    fb: int = 0
    f: int = 0
    calls: int = 0
    seconds: float = 0.0
    inside: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    @property
    def passes(self) -> int:
        """Forward and backward passes."""
        return 2 * self.fb + self.f

    @property
    def outside(self) -> float:
        """The share of the CPU time outside of the encoder."""
        return 1 - self.inside / self.seconds

    @property
    def batch(self) -> float:
        """The mean number of examples per call."""
        return (self.fb + self.f) / self.calls


class Counter:
    """Counts the examples that pass through an encoder's `embed`, forward and backward, and its CPU seconds."""

    def __init__(self) -> None:
        self.forwards = self.backwards = self.calls = 0
        self.inside = self.begun = 0.0

    @contextmanager
    def on(self, kind: type) -> Iterator[None]:
        """Counts the calls of every encoder of this class."""
        embed = kind.embed  # type: ignore[attr-defined]

        def count(encoder: object, x: Tensor, *rest: object, **named: object) -> Tensor:
            if x.requires_grad:
                x = x.view_as(x)
                x.register_hook(lambda gradient: self._stop())  # type: ignore[no-untyped-call]
            self.begun = process_time()
            out: Tensor = embed(encoder, x, *rest, **named)
            self._stop()
            self.forwards, self.calls = self.forwards + len(x), self.calls + 1
            if out.requires_grad:
                out.register_hook(lambda gradient: self._start_backward(len(x)))  # type: ignore[no-untyped-call]
            return out

        with mock.patch.object(kind, "embed", count):
            yield

    def _start_backward(self, n: int) -> None:
        self.backwards += n
        self.begun = process_time()

    def _stop(self) -> None:
        self.inside += process_time() - self.begun

    def spend(self, work: Callable[[], Any]) -> tuple[Spent, Any]:
        """Runs `work`; returns its cost and its result."""
        self.__init__()  # type: ignore[misc]
        begun = process_time()
        result = work()
        seconds = process_time() - begun
        return Spent(self.backwards, self.forwards - self.backwards, self.calls, seconds, self.inside), result
