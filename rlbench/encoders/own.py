"""An encoder of the user's own, by the name of what makes it."""

from __future__ import annotations

from collections.abc import Mapping

from rlbench import callables
from rlbench.core import Box, Encoder
from rlbench.errors import RLBenchError
from rlbench.registry import register

_NEEDED = ("boxes", "traits", "logit_scale", "sha256", "embed", "embed_text")


@register("encoder", "MODULE:CALLABLE")
def own(*, source: str) -> Encoder:
    """Your own encoder: my_package.encoders:make, a callable without arguments, of a module here or on Python's path.

    It must return an `rlbench.core.Encoder`, in evaluation mode, its parameters frozen. Cell keys hold the hash of its
    weights, its fields, and the source of its module and of what that imports from beside it.

    Raises:
        RLBenchError: the module or the callable is missing or fails, or what it returns is no encoder.
    """
    made = callables.call(source)
    missing = [needed for needed in _NEEDED if not hasattr(made, needed)]
    if missing:
        raise RLBenchError(
            f"{source} returned {type(made).__name__}, which is no encoder: it lacks {', '.join(missing)}"
        )
    boxes = made.boxes
    if not isinstance(boxes, Mapping) or not boxes or not all(isinstance(box, Box) for box in boxes.values()):
        raise RLBenchError(f"{source}: boxes is {boxes!r}; it must map modalities to rlbench.core.Box")
    return made  # type: ignore[no-any-return]
