"""Flags: which of n examples are correct, as n bits in whole bytes, hexadecimal."""

from __future__ import annotations

import re

import numpy as np

from rlbench.core import Record
from rlbench.core.errors import FieldError, quote

_HEX = re.compile(r"[0-9a-fA-F]*")


def pack(correct: np.ndarray) -> str:
    """(n,) bool as hexadecimal digits."""
    return np.packbits(correct).tobytes().hex()


def unpack(flags: str, n: int) -> np.ndarray:
    """(n,) bool. Raises: FieldError where the text is not that of n bits, the rest of the last byte being 0."""
    if not _HEX.fullmatch(flags):
        raise FieldError(f"flags is {quote(flags)}; it must be hexadecimal digits", "flags")
    if len(flags) != 2 * ((n + 7) // 8):
        raise FieldError(f"flags has {4 * len(flags)} bits; n = {n} in whole bytes", "flags")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(flags), dtype=np.uint8)).astype(bool)
    if bits[n:].any():
        raise FieldError(f"flags has examples beyond n = {n}", "flags")
    return bits[:n]


def flags_of(record: Record) -> np.ndarray:
    """(n,) bool: which examples of a record that has counts are correct. Raises: ValueError where it has no flags."""
    if record.flags is None:
        raise ValueError(f"{record.perturbation} has no flags: {record.error}")
    return unpack(record.flags, record.n)
