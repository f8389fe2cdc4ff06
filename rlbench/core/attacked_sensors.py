"""Parses which sensors of a task are attacked, corrupted or missing, and with what eps; errors name the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from rlbench.core.errors import RLBenchError
from rlbench.core.perturbation_types import Norm, Reach, Threat
from rlbench.core.sensors import SensorTask
from rlbench.core.threat import check_eps, parse_eps
from rlbench.core.types import Task
from rlbench.core.yaml_source import YamlPart, check_keys

WORDS = ("all", "any 1", "each")


class Attacked(NamedTuple):
    """Sensors that are attacked together, or one of them at a time (`reach`)."""

    sensors: tuple[str, ...]
    reach: Reach


@dataclass(frozen=True)
class Scope:
    """What the perturbations of a suite can act on.

    Attributes:
        modality: of the suite.
        task: of the suite.
        sensors: those of a task with several; () for other tasks.
        missing: those that give nothing.
    """

    modality: str
    task: Task
    sensors: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """The sensors that are not missing."""
        return tuple(sensor for sensor in self.sensors if sensor not in self.missing)

    def without(self, missing: Sequence[str]) -> Scope:
        """The scope where these sensors are missing."""
        return replace(self, missing=tuple(missing))

    def take(self, parts: dict[str, YamlPart], whole: YamlPart, *, words: Sequence[str] = WORDS) -> list[Attacked]:
        """Takes the key `sensors` out of an entry: the sensors of each of its cells; for one sensor, a cell of none."""
        part = parts.pop("sensors", None)
        if not self.sensors:
            if part is not None:
                part.fail(f"the suite has one sensor, {self.modality}; leave this key out")
            return [Attacked((), "")]
        if part is None:
            whole.fail(f"the key 'sensors' is missing: {', '.join([*words, *self.present])} or a list of sensors")
        return self.read(part, words)

    def read(self, part: YamlPart, words: Sequence[str]) -> list[Attacked]:
        """The sensors of each cell: a word, a sensor, or a list of sensors that belong together."""
        if part.is_scalar and part.value() in words:
            word = part.value()
            if word == "each":
                return [Attacked((sensor,), "") for sensor in self.present]
            return [Attacked(self.present, word if len(self.present) > 1 else "")]
        found: list[str] = []
        for one in part.each():
            if one.value() in self.missing:
                one.fail(f"{one.value()} is missing here, and gives no input; choose among {', '.join(self.present)}")
            sensor = one.one_of("sensor", [*self.present, *(words if part.is_scalar else ())])
            if sensor in found:
                one.fail(f"{sensor!r} appears twice")
            found.append(sensor)
        ordered = tuple(sensor for sensor in self.present if sensor in found)
        return [Attacked(ordered, "all" if ordered == self.present and len(ordered) > 1 else "")]


def scope_of(modality: str, task: Task) -> Scope:
    """The scope of a suite."""
    return Scope(modality, task, tuple(task.tasks) if isinstance(task, SensorTask) else ())


def parse_part(part: YamlPart, parse: Callable[..., Any], *values: object) -> Any:
    """Calls `parse` with values; an error names the line of the part that they come from."""
    try:
        return parse(*values)
    except RLBenchError as error:
        part.fail(str(error).removeprefix(f"{part.key} is "))


def parse_threat(part: YamlPart, norm: Norm, attacked: Attacked, known: Sequence[str]) -> Threat:
    """The threat model of an eps, or of a mapping from sensors to eps, which may name others of the `known` sensors.

    A sensor with eps 0 is not attacked, so that a threat model has one text and one key.
    """
    sensors = attacked.sensors
    if sensors and not part.is_scalar:
        check_keys(part.items(), part, known, known)
        eps = _parse_each(part, norm, sensors)
    else:
        one = _parse_eps(part, norm)
        eps = dict.fromkeys(sensors, one)
        if not sensors:
            return Threat(norm, one)
    return _threat(norm, attacked, eps)


def _threat(norm: Norm, attacked: Attacked, eps: Mapping[str, Fraction]) -> Threat:
    used = {sensor: one for sensor, one in eps.items() if one} or dict(eps)
    whole = len(used) == len(attacked.sensors) > 1
    reach: Reach = attacked.reach if whole or (attacked.reach == "any 1" and len(used) > 1) else ""
    largest = max(used.values())
    different = len(set(used.values())) > 1
    return Threat(norm, largest, tuple(used), reach=reach, by_sensor=tuple(used.values()) if different else ())


def _parse_each(part: YamlPart, norm: Norm, sensors: Sequence[str]) -> dict[str, Fraction]:
    found = part.items()
    for sensor in sensors:
        if sensor not in found:
            part.fail(f"it has no eps for {sensor}; give one for each of {', '.join(sensors)}, or one number for all")
    return {sensor: _parse_eps(found[sensor], norm) for sensor in sensors}


def _parse_eps(part: YamlPart, norm: Norm) -> Fraction:
    eps: Fraction = parse_part(part, parse_eps, part.value())
    parse_part(part, check_eps, eps, norm)
    return eps
