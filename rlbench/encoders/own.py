"""An encoder of the user's own, by the name of what makes it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from rlbench.core import Box, Encoder
from rlbench.errors import RLBenchError
from rlbench.registry import register

_NEEDED = ("boxes", "traits", "logit_scale", "sha256", "embed", "embed_text")


@register("encoder", "MODULE:CALLABLE")
def own(*, source: str) -> Encoder:
    """Your own encoder: my_package.encoders:make, a callable without arguments that Python can import.

    It must return an `rlbench.core.Encoder`, in evaluation mode, its parameters frozen. Records hold the hash of its
    module's source; that of its weights must come from its `sha256`.

    Raises:
        RLBenchError: the module has no such callable, or what it returns is no encoder.
    """
    name, _, attribute = source.partition(":")
    make = getattr(importlib.import_module(name), attribute, None)
    if not callable(make):
        raise RLBenchError(f"{source}: {name} has no callable {attribute!r}")
    made = make()
    missing = [needed for needed in _NEEDED if not hasattr(made, needed)]
    if missing:
        raise RLBenchError(
            f"{source} returned {type(made).__name__}, which is no encoder: it lacks {', '.join(missing)}"
        )
    boxes = made.boxes
    if not isinstance(boxes, Mapping) or not boxes or not all(isinstance(box, Box) for box in boxes.values()):
        raise RLBenchError(f"{source}: boxes is {boxes!r}; it must map modalities to rlbench.core.Box")
    return made  # type: ignore[no-any-return]
