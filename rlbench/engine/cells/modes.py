"""A suite with another seed, other test examples, or its attacks in another mode."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, cast, get_args

from rlbench.core import Mode, Suite
from rlbench.core.errors import FieldError
from rlbench.engine.cells.keys import in_mode


def varied(suite: Suite, *, seed: int | None = None, series: int | None = None, mode: Mode = "standalone") -> Suite:
    """The suite with these changes; None leaves it as it is.

    Raises: FieldError where there are no other examples, or for an unknown mode.
    """
    task = cast(Any, suite.task)
    if series is not None:
        if not is_dataclass(task) or "series" not in {f.name for f in fields(task)}:
            raise FieldError(f"{suite.name} has one set of test examples; series is for procedural worlds")
        task = replace(cast(Any, task), series=series)
    if mode not in get_args(Mode):
        raise FieldError(f"mode is {mode!r}; it must be one of {', '.join(get_args(Mode))}")
    columns = in_mode(suite.perturbations, mode, len(suite.task.classes))
    return replace(suite, task=task, seed=suite.seed if seed is None else seed, perturbations=columns)
