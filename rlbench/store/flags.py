"""Flags: which of n examples are correct, as n bits, padded with zeros to whole bytes, in hexadecimal."""

from __future__ import annotations

import re

import numpy as np

from rlbench.core import Record
from rlbench.core.errors import FieldError, quote

_HEX = re.compile(r"[0-9a-fA-F]*")


def pack(correct: np.ndarray) -> str:
    """Encodes (n,) bool as hexadecimal digits."""
    return np.packbits(correct).tobytes().hex()


def unpack(flags: str, n: int) -> np.ndarray:
    """Decodes flags.

    Args:
        flags: hexadecimal digits.
        n: the number of examples.

    Returns:
        (n,) bool.

    Raises:
        FieldError: they are not n bits, padded with zeros to whole bytes.
    """
    if not _HEX.fullmatch(flags):
        raise FieldError(f"flags is {quote(flags)}; it must be hexadecimal digits", "flags")
    if len(flags) != 2 * ((n + 7) // 8):
        raise FieldError(f"flags has {4 * len(flags)} bits; it must have n = {n}, padded to whole bytes", "flags")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(flags), dtype=np.uint8)).astype(bool)
    if bits[n:].any():
        raise FieldError(f"flags has bits set after the first n = {n}; the padding must be 0", "flags")
    return bits[:n]


def flags_of(record: Record) -> np.ndarray:
    """(n,) bool, which examples of a record are correct. Raises: ValueError if it has no flags, as a failed cell."""
    if record.flags is None:
        raise ValueError(f"{record.perturbation} has no flags: {record.error}")
    return unpack(record.flags, record.n)
