"""The suites and models that a run was asked for: one or several, by name or as objects."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from rlbench.core import Suite
from rlbench.core.errors import SuiteError
from rlbench.core.suite import load_suites
from rlbench.tasks.absent import find_absent


def as_several(one: object) -> list[object]:
    """The items of anything that has some; a name, a path or a suite by itself."""
    return list(one) if isinstance(one, Iterable) and not isinstance(one, str | os.PathLike) else [one]


def load_chosen(suites: object, absent: bool) -> list[Suite]:
    """The parts of suites, each once.

    Args:
        suites: one or several of names, files and Suite objects.
        absent: whether data sets may be missing (see `tasks.absent`).

    Raises:
        SuiteError: a suite's file is wrong, or two files have a suite of one name and version on the same task.
    """
    parts: dict[tuple[object, ...], Suite] = {}
    for one in as_several(suites):
        for part in [one] if isinstance(one, Suite) else load_suites(str(one)):
            other = parts.setdefault((part.name, part.version, part.modality, part.task_name), part)
            if _describe(other) != _describe(part):
                raise SuiteError(
                    f"{other.path} and {part.path} are both {part.name} version {part.version}, on {part.task_name}; "
                    "give one of them another name"
                )
    return [replace(part, task=find_absent(part.task)) if absent else part for part in parts.values()]


def _describe(part: Suite) -> tuple[object, ...]:
    """What differs between two suites that are not the same one."""
    return os.path.realpath(part.path), part.perturbations, part.examples, part.seed
