"""What `gpu.py` runs, at its real and at a tiny size, and how it measures time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rlbench.core import Modality
from rlbench.core.machine import full_float32, peak_memory, search_float32
from rlbench.core.precision import Precision
from rlbench.encoders.clip.towers import VisionSizes

WORLDS: tuple[Modality, ...] = ("image", "thermal", "audio", "video")
Row = tuple[str, str]  # what, and what was found


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        device: a torch device.
        tower: of part 2, a key of SIZES.
        model: whose towers part 4 loads.
        backbone: of the trained method.
        flags: examples of part 1.
        examples: of part 2.
        steps: of PGD in part 2.
        batches: batch sizes of part 2; 0 is auto.
        training: steps, and fields of the recipes.
        clips: batch size of part 4.
    """

    device: str
    tower: str = "vit-l-14"
    model: str = "random:vit-l-14"
    backbone: str = "vit-l-14"
    flags: int = 200
    examples: int = 256
    steps: int = 10
    batches: tuple[int, ...] = (64, 256, 0)
    training: tuple[int, tuple[tuple[str, object], ...]] = (
        3,
        (("batch", 128), ("accumulate", 4), ("precision", "bf16")),
    )
    clips: int = 4

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that the device has."""
        return ("fp32", "tf32", "bf16") if self.device.startswith("cuda") else ("fp32", "bf16")


TINY = Setting(
    device="cpu",
    tower="tiny",
    model="rlbind",
    backbone="mini",
    flags=4,
    examples=6,
    steps=2,
    batches=(4, 0),
    training=(1, (("batch", 8), ("accumulate", 2), ("precision", "bf16"), ("attack_steps", 1))),
    clips=2,
)


def sync(device: str) -> float:
    """The time once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(device: str, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of some work, and the peak memory in GB: of the GPU for the work, or of this process."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    begun = sync(device)
    work()
    return sync(device) - begun, peak_memory(device) / 1e9


def count_flop(sizes: VisionSizes) -> float:
    """Floating-point operations of a forward pass and the gradient in its input, as much again."""
    tokens = (sizes.height // sizes.patch) * (sizes.width // sizes.patch) + 1
    h, per_token = sizes.hidden, 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.mlp
    return 2 * 2 * sizes.layers * tokens * (per_token + 2 * tokens * h)


def reach_peak(device: str, precision: Precision) -> float:
    """Floating-point operations a second of a large matrix product."""
    n, times = (8192, 10) if device.startswith("cuda") else (256, 2)
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    with full_float32(), search_float32(precision):
        a @ a
        seconds, _ = measure(device, lambda: [a @ a for _ in range(times)])
    return 2 * n**3 * times / seconds
