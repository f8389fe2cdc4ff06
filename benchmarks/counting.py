"""What runs spend: passes of an encoder, forward and backward, its calls, and processor time in and outside of it."""

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
    """Passes, calls of the encoder, and CPU seconds; `fb` passes have a backward pass, `f` have none."""

    fb: int = 0
    f: int = 0
    calls: int = 0
    seconds: float = 0.0
    inside: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    @property
    def passes(self) -> int:
        """Forward and backward."""
        return 2 * self.fb + self.f

    @property
    def outside(self) -> float:
        """Share of the seconds."""
        return 1 - self.inside / self.seconds

    @property
    def batch(self) -> float:
        """Mean examples of a call."""
        return (self.fb + self.f) / self.calls


class Counter:
    """Counts the examples that go through an encoder's `embed`, forward and backward, and its seconds."""

    def __init__(self) -> None:
        self.forwards = self.backwards = self.calls = 0
        self.inside = self.begun = 0.0

    @contextmanager
    def on(self, kind: type) -> Iterator[None]:
        """Counts the calls of every encoder of this class."""
        embed = kind.embed  # type: ignore[attr-defined]

        def counted(encoder: object, x: Tensor, *rest: object, **named: object) -> Tensor:
            if x.requires_grad:
                x = x.view_as(x)
                x.register_hook(lambda gradient: self._ended())  # type: ignore[no-untyped-call]
            self.begun = process_time()
            out: Tensor = embed(encoder, x, *rest, **named)
            self._ended()
            self.forwards, self.calls = self.forwards + len(x), self.calls + 1
            if out.requires_grad:
                out.register_hook(lambda gradient: self._back(len(x)))  # type: ignore[no-untyped-call]
            return out

        with mock.patch.object(kind, "embed", counted):
            yield

    def _back(self, n: int) -> None:
        self.backwards += n
        self.begun = process_time()

    def _ended(self) -> None:
        self.inside += process_time() - self.begun

    def spend(self, work: Callable[[], Any]) -> tuple[Spent, Any]:
        """What `work` spends, and its result."""
        self.__init__()  # type: ignore[misc]
        begun = process_time()
        result = work()
        seconds = process_time() - begun
        return Spent(self.backwards, self.forwards - self.backwards, self.calls, seconds, self.inside), result
