"""What runs in an actor of a Ray cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib import import_module
from threading import RLock
from typing import Any

from rlbench.core.errors import RLBenchError
from rlbench.core.executor import Report
from rlbench.core.machine import code
from rlbench.executors.messages import forward_log, pack_error

Gathered = tuple[int, dict[Any, Any], list[str]]  # passes, news and log messages since the last time
Answer = tuple[str, Any, Gathered]  # "done" and a result, or "error" and an error


class Server:
    """Does a job at a time in one thread, and answers questions in another."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.passes = 0
        self.news: dict[Any, Any] = {}
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
            return "error", pack_error(self._name(error)), self.drain()
        return "done", self.node, self.drain()

    def do(self, job: object, ahead: object) -> Answer:
        """Does a job, see `Work.perform`."""
        report = Report(self._gather)
        try:
            result = self.perform(self.shared, self.device, job, ahead, report)
        except Exception as error:
            return "error", pack_error(self._name(error)), self.drain()
        report.flush()
        return "done", result, self.drain()

    def drain(self) -> Gathered:
        """What jobs reported and logged since the last call."""
        with self.lock:
            gathered = self.passes, self.news, self.notes[:]
            self.passes, self.news = 0, {}
            self.notes.clear()
        return gathered

    def _gather(self, passes: int, news: Mapping[Any, Any]) -> None:
        with self.lock:
            self.passes += passes
            self.news |= news

    def _name(self, error: Exception) -> Exception:
        """The error, with the node's name in front of a user's mistake."""
        if isinstance(error, RLBenchError):
            error.args = (f"node {self.node}: {error}", *error.args[1:])
        return error
