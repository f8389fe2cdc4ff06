"""What runs in an actor of a Ray cluster."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

from rlbench.core.errors import RLBenchError
from rlbench.core.machine import code
from rlbench.executors.messages import Throttle, forward_log, pack_error

Answer = tuple[str, Any, int, list[str]]  # "done" and a result, or "error" and an error; passes and log messages since


class Server:
    """Does a job at a time in one thread, and answers questions in another."""

    def __init__(self) -> None:
        self.passes = 0
        self.notes: list[str] = []

    def begin(self, module: str, name: str, shared: object, device: str, expected: str) -> Answer:
        """Prepares for jobs; the result is the node's name.

        Args:
            module: of `Work.perform`.
            name: of `Work.perform`.
            shared: as `Work.shared`.
            device: the torch device.
            expected: the driver's `machine.code()`.
        """
        from ray.util import get_node_ip_address

        self.node = f"{socket.gethostname()} ({get_node_ip_address()})"
        self.shared, self.device = shared, device
        forward_log(self.notes.append)
        try:
            if code() != expected:
                raise RLBenchError("it has another version of rlbench than this machine; install the same there")
            self.perform = getattr(import_module(module), name)
        except Exception as error:
            return "error", pack_error(self._name(error)), *self.drain()
        return "done", self.node, *self.drain()

    def do(self, job: object, ahead: object) -> Answer:
        """Does a job, see `Work.perform`."""
        meter = Throttle(self._count)
        try:
            result = self.perform(self.shared, self.device, job, ahead, meter)
        except Exception as error:
            return "error", pack_error(self._name(error)), *self.drain()
        meter.flush()
        return "done", result, *self.drain()

    def drain(self) -> tuple[int, list[str]]:
        """The passes and the log messages since the last call."""
        passes, notes = self.passes, list(self.notes)
        self.passes -= passes
        del self.notes[: len(notes)]
        return passes, notes

    def _count(self, passes: int) -> None:
        self.passes += passes

    def _name(self, error: Exception) -> Exception:
        """The error, with the node's name in front of a user's mistake."""
        if isinstance(error, RLBenchError):
            error.args = (f"node {self.node}: {error}", *error.args[1:])
        return error
