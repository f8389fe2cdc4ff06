"""An encoder of the user's own, by the name of what makes it."""

from __future__ import annotations

import importlib
from typing import cast

from rlbench.core import Encoder
from rlbench.errors import RLBenchError
from rlbench.registry import register


@register("encoder", "MODULE:CALLABLE")
def own(*, source: str) -> Encoder:
    """Your own encoder: my_package.encoders:make, a callable without arguments that Python can import.

    It must return an `rlbench.core.Encoder`, in evaluation mode, its parameters frozen. Records hold the hash of its
    module's source; that of its weights must come from its `sha256`.

    Raises:
        RLBenchError: the module has no such callable.
    """
    name, _, attribute = source.partition(":")
    make = getattr(importlib.import_module(name), attribute, None)
    if not callable(make):
        raise RLBenchError(f"{source}: {name} has no callable {attribute!r}")
    return cast("Encoder", make())
