"""Notices that a user's code changes torch's global settings, which rlbench's own tensors depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlbench.core.errors import RLBenchError


@contextmanager
def keep_settings(model: str) -> Iterator[None]:
    """Restores what the block changes of torch's default dtype, default device and gradient mode.

    Args:
        model: its name, or that of an attack or corruption, for messages.

    Raises:
        RLBenchError: the default dtype or device changed, of which the block's tensors may be. A changed gradient mode
            does not matter, since rlbench sets it for every pass.
    """
    dtype, device, mode = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    try:
        yield
        changed = [
            f"{name} to {new}"
            for name, old, new in (
                ("dtype", dtype, torch.get_default_dtype()),
                ("device", device, torch.get_default_device()),
            )
            if old != new
        ]
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(mode)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
    if changed:
        raise RLBenchError(
            f"{model} sets torch's default {' and '.join(changed)} for the whole program; give dtype= and device= "
            "where it makes tensors, instead"
        )
