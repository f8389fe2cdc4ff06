"""Each sensor by itself, on the inputs that a task with several sensors has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from rlbench.core import Adversarial
from rlbench.core.sensors import PAIRINGS, join_fingerprints
from rlbench.core.threat import single_sensors
from rlbench.report.boards.scores import Score, Table
from rlbench.store.columns import Column


def find_alone(table: Table, found: Sequence[Table]) -> dict[str, Table]:
    """The table of each sensor by itself on the inputs of a task with several sensors.

    A store may have other tables of a sensor: of other series of examples, tasks or files. The data of the right ones
    make the joint task's fingerprint. Where a sensor has no table, the fingerprint can't be made; then the others'
    tables are taken only if the store has one set of data of each.

    Args:
        table: of the task with several sensors.
        found: all tables of the store.
    """
    sensors = str(table.facts["modality"]).split("+")
    suite = [one for one in found if all(one.facts[k] == table.facts[k] for k in ("suite", "suite_version"))]
    alike = [one for one in suite if all(one.facts[k] == table.facts[k] for k in ("seed", "n"))]
    own = {sensor: [one for one in alike if one.facts["modality"] == sensor] for sensor in sensors}
    if all(own.values()):
        chosen = (dict(zip(sensors, some, strict=True)) for some in product(*own.values()))
        return next((some for some in chosen if _is_joint(table, some)), {})
    data = {name: {one.facts["data"] for one in suite if one.facts["modality"] == name} for name in own}
    joint = {one.facts["data"] for one in suite if one.facts["modality"] == table.facts["modality"]}
    single = len(joint) == 1 and all(len(each) < 2 for each in data.values())
    return {sensor: those[0] for sensor, those in own.items() if those} if single else {}


def _is_joint(table: Table, alone: Mapping[str, Table]) -> bool:
    data = {sensor: str(one.facts["data"]) for sensor, one in alone.items()}
    return table.facts["data"] in {join_fingerprints(data, pairing) for pairing in PAIRINGS}


def attacked_alone(attack: Adversarial, single: Mapping[str, Mapping[Column, Score]]) -> dict[str, Score]:
    """The score of each sensor by itself under its part of an attack on several."""
    parts = {threat.sensors[0]: replace(threat, sensors=()) for threat in single_sensors(attack.threat)}
    wanted = {sensor: str(replace(attack, threat=threat)) for sensor, threat in parts.items()}
    return {s: score for s, name in wanted.items() for column, score in single.get(s, {}).items() if column == name}
