"""A user's own encoder, by the name of the callable that makes it."""

from __future__ import annotations

from typing import cast

from rlbench.core import Encoder, callables
from rlbench.core.registry import register


@register("encoder", "MODULE:CALLABLE")
def own(*, source: str) -> Encoder:
    """Your own encoder: my_package.encoders:make, a callable without arguments in a module here or on Python's path.

    It must return an `rlbench.core.Encoder` in evaluation mode with frozen parameters. Cell keys contain hashes of its
    weights, its fields, the source of its module and of the user's modules that it imports.

    Args:
        source: MODULE:CALLABLE.

    Raises:
        RLBenchError: the module or the callable is missing or fails.
    """
    return cast("Encoder", callables.call(source))
