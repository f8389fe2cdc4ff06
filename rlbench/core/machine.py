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
from typing import Any

import numpy as np
import torch

from rlbench.core.errors import FieldError


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
def reproducible(device: str) -> Iterator[None]:
    """One thread on a CPU, and full float32 anywhere: the arithmetic that numbers are compared in."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with full_float32():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products and convolutions of float32 in float32, where somebody allowed TF32 or bfloat16 for speed."""
    parts = [(part, kind) for part in ("cuda", "cudnn", "mkldnn") for kind in ("matmul", "conv")]
    kinds: list[Any] = [getattr(getattr(torch.backends, part), kind, None) for part, kind in parts]
    newer = [kind for kind in kinds if hasattr(kind, "fp32_precision")]  # torch 2.9
    before, older = [kind.fp32_precision for kind in newer], _older_precision()
    if older is not None:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    for kind in newer:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
        for kind, precision in zip(newer, before, strict=True):
            kind.fp32_precision = precision


def _older_precision() -> tuple[str, bool] | None:
    """Of matrix products, and whether convolutions use TF32; None where the newer settings were used instead."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


@cache
def code() -> str:
    """A hash of rlbench's own sources, to notice what was computed by others."""
    root = Path(__file__).parents[1]
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
