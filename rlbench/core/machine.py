"""The machine: devices, processors, reproducible arithmetic, and the versions that a result records."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlbench.core.errors import FieldError
from rlbench.core.precision import Precision


def devices_of(name: str) -> tuple[str, ...]:
    """The torch devices for "auto", "cpu", "cuda" (every visible GPU) or "cuda:1". Raises: FieldError for others."""
    gpus = tuple(f"cuda:{k}" for k in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    if name == "auto":
        return gpus or ("cpu",)
    if name.partition(":")[0] == "cuda":
        if not gpus:
            raise FieldError(
                f"device {name!r} can't be used: torch {torch.__version__} sees no GPU here; use cpu or auto"
            )
        if name != "cuda" and name not in gpus:
            raise FieldError(f"there is no device {name!r} here; use {', '.join(gpus)}, or cuda for all of them")
        return gpus if name == "cuda" else (name,)
    if not is_usable(name):
        raise FieldError(f"device {name!r} can't be used here; use auto, cpu or cuda")
    return (name,)


def is_usable(device: str) -> bool:
    """Whether this machine has a torch device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


def device_of(name: str) -> str:
    """The first of the devices for a name; see `devices_of`."""
    return devices_of(name)[0]


def peak_memory(device: str) -> int:
    """The peak memory of this process in bytes: of the GPU for a CUDA device, else of the machine."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Runs the block in one thread on a CPU, and in full float32 on any device, so that numbers can be compared."""
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
    """Runs the block without TF32 or bfloat16 in float32 products and convolutions, even if they were allowed."""
    with _float32(tf32=False):
        yield


@contextmanager
def search_float32(precision: Precision) -> Iterator[None]:
    """Runs the block, a search, with TF32 in CUDA's products and convolutions if its precision is tf32."""
    with _float32(tf32=True) if precision == "tf32" else nullcontext():
        yield


@contextmanager
def _float32(*, tf32: bool) -> Iterator[None]:
    parts = [(part, kind) for part in ("cuda", "cudnn", "mkldnn") for kind in ("matmul", "conv")]
    kinds: list[Any] = [getattr(getattr(torch.backends, part), kind, None) for part, kind in parts]
    newer = [kind for kind in kinds if hasattr(kind, "fp32_precision")]  # torch 2.9
    before, older = [kind.fp32_precision for kind in newer], _older_precision()
    if older is not None:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    for kind, (part, _) in zip(kinds, parts, strict=True):
        if kind in newer:
            kind.fp32_precision = "tf32" if tf32 and part != "mkldnn" else "ieee"
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
        for kind, precision in zip(newer, before, strict=True):
            kind.fp32_precision = precision


def _older_precision() -> tuple[str, bool] | None:
    """The older settings: precision of matrix products, and TF32 in convolutions; None if the newer ones are in use."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


@cache
def code() -> str:
    """A hash of rlbench's own sources, to notice results of another version."""
    root = Path(__file__).parents[1]
    sources = sorted((str(path.relative_to(root)), path.read_bytes()) for path in root.rglob("*.py"))
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


@cache
def environment(device: str) -> Mapping[str, str]:
    """The versions, device and dtype that a block is computed with."""
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
