"""The machine: its devices and processors, the arithmetic that numbers are compared in, and versions."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from rlbench.errors import FieldError


def device_of(name: str) -> str:
    """A torch device for "auto", "cpu" or "cuda". Raises: FieldError where it can't be used."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise FieldError(f"device {name!r} can't be used here; use auto, cpu or cuda") from None
    return name


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: str) -> int:
    """The most bytes that this process has held: of the GPU if it is one, and else of the machine."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def settled(device: str) -> Iterator[None]:
    """One thread on a CPU, full float32 on a GPU: the arithmetic that numbers are compared in."""
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    if device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = tf32


@cache
def code() -> str:
    """A hash of rlbench's own sources, to notice what was computed by others."""
    root = Path(__file__).parent
    sources = sorted((str(path.relative_to(root)), path.read_bytes()) for path in root.rglob("*.py"))
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


@cache
def environment(device: str) -> Mapping[str, str]:
    """Versions, device and dtype: what a block was computed with."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    try:
        own = version("rlbind-bench")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "rlbench": own,
        "code": code(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": name,
        "dtype": "float32",
    }
