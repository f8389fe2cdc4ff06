"""Natural corruptions, one file per family, registered by @register; `corrupt` applies one by name.

from rlbench.corruptions import corrupt

foggy = corrupt(pictures, "fog", 3)                                # (B, 3, H, W) in [0, 1]
hissing = corrupt(waves, "white_noise", 4, low=-1.0, rate=44100)   # (B, 1, samples) in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from rlbench.core import Corruption, Field


def corrupt(
    x: Tensor,
    name: str,
    severity: int,
    *,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    **fields: Field,
) -> Tensor:
    """Applies a corruption by its name to a batch; x is not changed.

    Args:
        x: (B, *shape) floats in [low, high]: pictures and thermal images (B, C, H, W), clips (B, C, T, H, W), log-mel
            spectrograms (B, 1, mels, frames), waveforms (B, 1, samples) with silence in the middle of the range.
        name: a registered corruption; see `rlbench list corruptions`.
        severity: 1 (visible) to 5 (still recognisable).
        seed: the seed of the random streams.
        ids: one per example, by default its index; a stream depends on the seed and the id, not on the batch.
        low: the smallest value of the range.
        high: the largest value of the range.
        **fields: the fields of the corruption, such as a waveform's `rate` in Hz.

    Returns:
        The same shape and dtype, in [low, high].

    Raises:
        UnknownName: there is no such corruption.
        FieldError: a field or the severity is wrong.
        DataError: x has the wrong shape, or leaves [low, high].
    """
    import torch

    from rlbench.core.errors import DataError
    from rlbench.core.registry import make
    from rlbench.core.seeds import ExampleStreams

    corruption: Corruption = make("corruption", name, fields)
    ids = tuple(map(str, range(len(x)))) if ids is None else tuple(ids)
    if len(ids) != len(x):
        raise DataError(f"{len(ids)} ids for {len(x)} examples; give one for each")
    if not torch.isfinite(x).all() or (x.numel() and (x.min() < low or x.max() > high)):
        raise DataError(f"x leaves [{low}, {high}] or is not finite; give low and high of its range")
    unit = ((x - low) / (high - low)).clamp(0, 1)
    out = corruption(unit, severity, ExampleStreams(seed, ids, f"{name} {severity}"))
    return (low + (high - low) * out).clamp(low, high)
