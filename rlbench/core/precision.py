"""The precision in which an attack searches; the judge always computes in full float32. Imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

from rlbench.core.errors import FieldError, quote

Precision = Literal["fp32", "tf32", "bf16"]
PRECISION: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: object, device: str | None = None) -> Precision:
    """The precision, if it is one and the device has it.

    Args:
        precision: a value of `Precision`.
        device: a torch device such as "cuda:0"; None for any.

    Raises:
        FieldError: it is none, or the device lacks it.
    """
    found = next((one for one in PRECISION if one == precision), None)
    if found is None:
        raise FieldError(f"precision is {quote(precision)}; it must be one of {', '.join(PRECISION)}", "precision")
    if found == "tf32" and device is not None and not device.startswith("cuda"):
        raise FieldError(f"precision is tf32, which {device} does not have: use fp32, bf16, or a GPU", "precision")
    return found
