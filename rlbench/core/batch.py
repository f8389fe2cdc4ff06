"""How many examples a pass may have: a number that halves where memory runs out."""

from __future__ import annotations

from dataclasses import dataclass

from rlbench.core.errors import AttackError, FieldError
from rlbench.core.files import LOG


@dataclass(eq=False)
class BatchSize:
    """The most examples of a forward pass on a device, at least 1; whoever holds it sees it shrink.

    Attributes:
        size: the number.
        device: the torch device whose memory limits it.
    """

    size: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise FieldError(f"batch_size is {self.size}; it must be at least 1")

    def halve(self) -> None:
        """Halves the number after memory ran out, frees memory, and logs it. Raises: AttackError: it is 1."""
        import torch  # here, since listings import this package without it

        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if self.size == 1:
            raise AttackError(
                f"one example does not fit in the memory of {self.device}; close other programs, use a smaller model, "
                "or precision bf16"
            )
        before, self.size = self.size, self.size // 2
        LOG.warning("memory ran out on %s with batches of %d; going on with %d", self.device, before, self.size)
