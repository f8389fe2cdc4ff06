"""The ids of a benchmark's tasks on the hub: each part of a suite, and each norm and eps of it, is a task.

Example: `thermal_linf_4_255`; of a suite of several parts, `scenes_image_clean` and `scenes_image-thermal_sum_clean`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rlbench.core import Adversarial, Clean, Perturbation, Suite, Worst
from rlbench.core.suite import load_suites, suites
from rlbench.core.threat import text_of, threat_of
from rlbench.store.columns import Mean


class Part(NamedTuple):
    """What an id is of, besides the suite.

    Attributes:
        modality: a modality, or several joined by "+".
        task: of several sensors, the name of the task, which ends with the fusion; "" of one, whose tasks have a mean.
    """

    modality: str
    task: str

    @classmethod
    def of(cls, modality: str, task: str) -> Part:
        """The part of a task."""
        return cls(modality, task if "+" in modality else "")

    @property
    def name(self) -> str:
        """`thermal`, or the sensors and their fusion: `image-thermal_sum`."""
        fusion = self.task.rpartition(":")[2]
        return "_".join(filter(None, (self.modality.replace("+", "-"), fusion)))


def name_suites(suite: str, parts: Iterable[Part]) -> dict[Part, str]:
    """What the ids of each part begin with: the suite, and the part if the suite has several.

    Args:
        suite: its name; if it is installed, its other parts count, too.
        parts: those that are known.
    """
    installed = suite in {info.name for info in suites()}
    known = [Part.of(one.modality, one.task_name) for one in load_suites(suite)] if installed else []
    every = list(dict.fromkeys([*known, *parts]))
    if len(every) < 2:
        return dict.fromkeys(every, suite)
    names = [part.name for part in every]
    return {
        part: f"{suite}_{part.name if names.count(part.name) == 1 else _make_safe(part.task.replace('+', '-'))}"
        for part in every
    }


def task_id(start: str, of: Perturbation | Mean) -> str | None:
    """The id of a column's task; None for a column that has none, such as a single corruption or a missing sensor.

    Args:
        start: what it begins with (see `name_suites`).
        of: what was measured.

    Example: `thermal_linf_4_255` for the worst case at Linf 4/255, `thermal_corruptions_3` for the mean at severity 3.
    """
    if isinstance(of, Mean):
        return f"{start}_corruptions_{of.severity}"
    if isinstance(of, Clean):
        return f"{start}_clean"
    if not isinstance(of, Worst | Adversarial) or text_of(of):
        return None
    return f"{start}_{_make_safe(str(of.threat))}"


def _make_safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


def list_task_ids(parts: Sequence[Suite]) -> list[str]:
    """The ids of a suite's tasks, part by part: clean, then each norm and eps of its attacks.

    Args:
        parts: of one suite; several tasks of one modality have one mean, and so one id.
    """
    starts = name_suites(parts[0].name, [Part.of(one.modality, one.task_name) for one in parts])
    found = []
    for one in parts:
        start = starts[Part.of(one.modality, one.task_name)]
        plain = [p for p in one.perturbations if isinstance(p, Worst | Adversarial) and text_of(p) is None]
        threats = {threat for p in plain if (threat := threat_of(p))}
        ordered = sorted(threats, key=lambda threat: (threat.norm == "l2", threat.eps, str(threat)))
        found += [task_id(start, Clean()), *(task_id(start, Worst(threat)) for threat in ordered)]
    return [name for name in dict.fromkeys(found) if name]
