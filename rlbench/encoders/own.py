"""An encoder of the user's own, by the name of what makes it."""

from __future__ import annotations

from typing import cast

from rlbench.core import Encoder, callables
from rlbench.core.registry import register


@register("encoder", "MODULE:CALLABLE")
def own(*, source: str) -> Encoder:
    """Your own encoder: my_package.encoders:make, a callable without arguments, of a module here or on Python's path.

    It must return an `rlbench.core.Encoder`, in evaluation mode, its parameters frozen. Cell keys hold the hash of its
    weights, its fields, and the source of its module and of what that imports from beside it.

    Raises:
        RLBenchError: the module or the callable is missing or fails.
    """
    return cast("Encoder", callables.call(source))
