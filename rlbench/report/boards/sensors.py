"""Tables of several sensors: what each is worth alone, and what the fused model loses when one is attacked or missing.

- *Fusion gain under attack*: fused accuracy under an attack on any 1 sensor minus the clean accuracy of the best sensor
  alone, on the same examples. Above 0, more sensors help even if one of them lies.
- *Leak* of a sensor: the share of examples that are right without it and wrong when it is attacked: it had better been
  switched off.
- *Certified*: right whatever any one sensor says (see `encoders.takeover`), at most the accuracy under `any 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Missing, Threat
from rlbench.core.markdown import grid
from rlbench.core.stats.metrics import format_p
from rlbench.core.stats.paired import Pairs
from rlbench.core.threat import eps_by_sensor, threat_of
from rlbench.report.boards.alone import attacked_alone, find_alone
from rlbench.report.boards.attack_counts import count_attacked
from rlbench.report.boards.scores import Score, Table, describe_distinction
from rlbench.store.columns import Column, Mean

READING = (
    "Accuracy in % [95% interval]. `alone`: a sensor by itself. `without`: the fusion of the others. Under an attack "
    "on one sensor, on `any 1` (right only if right under the attack on each sensor alone), or on `all` at once, each "
    "in its own ball. `leak`: right without the sensor, and wrong when it is attacked. `gain`: `any 1` minus the best "
    "sensor alone and clean, in points (examples that only the fused model gets right : only that sensor, p of "
    "McNemar's test). `certified`: right whatever any one sensor says, shown without an attack, for fusions that have "
    "such a certificate; a lower bound of `any 1` at any eps."
)


@dataclass(frozen=True)
class SensorTable:
    """A model's results on a task with several sensors.

    Attributes:
        title: suite, sensors, model and fusion.
        group: what all tables of a suite share: the suite, its sensors, world, backbone and number of examples.
        model: its name, with its badge if its numbers are in doubt.
        fusion: name of the fusion.
        sensors: in order.
        alone: by "clean" or the name of an attack's row, the score of each sensor by itself, where the records have it.
        clean: the fused clean score.
        rows: by what happens, the score by the sensors that it happens to: a sensor, "any 1", "all" or several.
        leaks: by attack and sensor, the leak in [0, 1].
        gains: by attack, the gain as text.
        numbers: by attack, the accuracy by the number of attacked sensors (see `count_attacked`).
    """

    title: str
    group: str
    model: str
    fusion: str
    sensors: tuple[str, ...]
    alone: Mapping[str, Mapping[str, Score]]
    clean: Score | None
    rows: Mapping[str, Mapping[str, Score]]
    leaks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gains: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[int, Score]] = field(default_factory=dict)

    @property
    def attacks(self) -> list[str]:
        """The names of the rows with an attack on any 1 or all sensors."""
        return [name for name, row in self.rows.items() if {"any 1", "all"} & set(row)]

    @property
    def certified(self) -> Score | None:
        """The share of examples that are right whatever any one sensor says; None without certificates."""
        return None if self.clean is None else self.clean.certified

    def grid(self, text: Callable[[Score], str] = str) -> list[dict[str, str]]:
        """The cells as text: a column for what is fused, for each sensor, for any 1 and for all."""
        any_1 = ["any 1"] if self.certified is not None else []
        names = [*self.sensors, *dict.fromkeys(name for row in self.rows.values() for name in row), *any_1]
        head = dict.fromkeys(("fused", *names), "-")
        found = [
            {"": f"alone, {name}"} | head | {place: text(score) for place, score in row.items()}
            for name, row in self.alone.items()
            if row
        ]
        found.append({"": "fused, clean"} | head | {"fused": "-" if self.clean is None else text(self.clean)})
        if self.certified is not None:
            found.append({"": "certified"} | head | {"any 1": text(self.certified)})
        for name, row in self.rows.items():
            found.append({"": name} | head | {place: text(score) for place, score in row.items()})
            if leaks := self.leaks.get(name):
                found.append({"": "leak"} | head | {place: f"{100 * leak:.1f}" for place, leak in leaks.items()})
        return found


def sensor_tables(found: Sequence[Table]) -> list[SensorTable]:
    """The results of tasks with several sensors; the sensors alone are other parts of the same suite."""
    return [one for table in found if table.has_sensors for one in _of_table(table, found)]


def _of_table(table: Table, found: Sequence[Table]) -> Iterator[SensorTable]:
    facts = table.facts
    sensors = tuple(str(facts["modality"]).split("+"))
    world, _, fusion = str(facts["task"]).rpartition(f":{facts['modality']}:")
    apart = describe_distinction(facts, _find_distinction(table, found))
    own = find_alone(table, found)
    for row in table.rows:
        single = {s: other.scores for s, t in own.items() for other in t.rows if other.model == row.model}
        rows, clean = _rows(row.scores), row.scores.get(Column(Clean()))
        alone = {"clean": {s: single[s]["clean"] for s in sensors if "clean" in single.get(s, {})}}  # type: ignore[index]
        attacks = [column.of for column in row.scores if isinstance(column.of, Adversarial)]
        alone |= {_name(attack): attacked_alone(attack, single) for attack in attacks if len(attack.threat.sensors) > 1}
        suite = f"{facts['suite']} v{facts['suite_version']}: {', '.join(sensors)}"
        backbone = f", backbone {table.backbone}" if table.backbone else ""
        group = f"{suite} on {world}{backbone}{apart}, n = {facts['n']}"
        title = f"{suite}{apart}; {row.marked_name}, fusion {fusion}"
        one = SensorTable(title, group, row.marked_name, fusion, sensors, alone, clean, rows)
        counts = {
            name: count_attacked(sensors, clean, rows[name]) for name in map(_name, attacks) if name in one.attacks
        }
        yield replace(one, leaks=_leaks(one, list(row.scores)), gains=_gains(one), numbers=counts)


def _find_distinction(table: Table, found: Sequence[Table]) -> list[str]:
    """The facts besides n that distinguish a task with several sensors from others of its suite and sensors."""
    names = ("suite", "suite_version", "modality")
    alike = [one for one in found if all(one.facts[k] == table.facts[k] for k in names)]
    return [name for name in ("data", "seed") if len({one.facts[name] for one in alike}) > 1]


def _rows(scores: Mapping[Column, Score]) -> dict[str, dict[str, Score]]:
    """The scores by what happens and to which sensors; an attack's row has all sensors that it attacks alone."""
    found: dict[str, dict[str, Score]] = {}
    attacks = [(column.of, score) for column, score in scores.items() if isinstance(column.of, Adversarial)]
    for column, score in scores.items():
        if isinstance(column.of, Missing):
            found.setdefault("without", {})["+".join(column.of.sensors)] = score
        elif isinstance(column.of, Corrupted):
            name = str(column.of).removesuffix(column.of.place)
            found.setdefault(name, {})["+".join(column.of.sensors)] = score
    for attack, score in attacks:
        if any(_is_part(attack, other) for other, _ in attacks):
            continue
        row = found.setdefault(_name(attack), {})
        row |= {_place(own.threat): its for own, its in attacks if _is_part(own, attack)}
        row[_place(attack.threat)] = score
    for column, score in scores.items():
        threat = threat_of(column.of) if not isinstance(column.of, Mean) else None
        if threat is not None and not isinstance(column.of, Adversarial):  # a worst case, or after a corruption
            found.setdefault(str(column).removesuffix(threat.place), {})[_place(threat)] = score
    return {name: _in_order(row) for name, row in found.items()}


def _in_order(row: Mapping[str, Score]) -> dict[str, Score]:
    """One sensor first, then several, then any 1, then all."""
    return dict(sorted(row.items(), key=lambda one: (one[0] == "all", one[0] == "any 1", "+" in one[0])))


def _place(threat: Threat) -> str:
    return threat.reach or "+".join(threat.sensors)


def _name(attack: Adversarial) -> str:
    return str(attack).removesuffix(attack.threat.place)


def _is_part(own: Adversarial, whole: Adversarial) -> bool:
    """Whether an attack is that on several sensors, restricted to some of them."""
    one, other = eps_by_sensor(own.threat), eps_by_sensor(whole.threat)
    alike = all(getattr(own.threat, name) == getattr(whole.threat, name) for name in ("norm", "knowledge", "precision"))
    within = len(one) < len(other) and all(other.get(sensor) == eps for sensor, eps in one.items())
    return own.call == whole.call and alike and within and own.threat.reach != "any 1"


def _leaks(table: SensorTable, columns: Sequence[Column]) -> dict[str, dict[str, float]]:
    """The leaks of every row, but not of an attack after a corruption, which `without` lacks."""
    found: dict[str, dict[str, float]] = {}
    threats = {column: threat_of(column.of) for column in columns if isinstance(column.of, Composed)}
    mixed = {str(column).removesuffix(threat.place) for column, threat in threats.items() if threat is not None}
    for name in (name for name in table.rows if name not in {"without", *mixed}):
        for sensor, attacked in table.rows[name].items():
            without = table.rows.get("without", {}).get(sensor)
            if without is not None and without.hits is not None and attacked.hits is not None:
                lost = (without.hits > 0) & (attacked.hits == 0)
                found.setdefault(name, {})[sensor] = float(lost.mean())
    return found


def _gains(table: SensorTable) -> dict[str, str]:
    exact = [score for score in table.alone["clean"].values() if score.hits is not None]
    if len(exact) < len(table.sensors):
        return {}
    best = max(exact, key=lambda score: score.share)
    found = {}
    for name in table.attacks:
        any_1 = table.rows[name].get("any 1")
        if any_1 is not None and any_1.hits is not None and best.hits is not None:
            pairs = Pairs.of(best.hits > 0, any_1.hits > 0)
            found[name] = f"{0.0 - pairs.drop:+.1f} ({pairs.gained}:{pairs.lost}, p {format_p(pairs.p)})"
    return found


def groups(found: Sequence[SensorTable]) -> dict[str, list[SensorTable]]:
    """The tables by what those of a suite share."""
    return {
        group: [table for table in found if table.group == group] for group in dict.fromkeys(t.group for t in found)
    }


def summary(found: Sequence[SensorTable], text: Callable[[Score], str] = str) -> list[dict[str, str]]:
    """A row per model, fusion and attack: the columns by which fusions are compared."""
    rows = []
    for table in found:
        best = max(table.alone["clean"].values(), key=lambda score: score.share, default=None)
        without = min(table.rows.get("without", {}).values(), key=lambda score: score.share, default=None)
        for name in table.attacks or [""]:
            row = table.rows.get(name, {})
            scores = {"best alone": best, "fused": table.clean, "worst without one": without}
            scores |= {"certified": table.certified} if any(one.certified for one in found) else {}
            scores |= {"any 1": row.get("any 1"), "all": row.get("all")}
            texts = {place: "-" if score is None else text(score) for place, score in scores.items()}
            rows.append(
                {"model": table.model, "fusion": table.fusion}
                | texts
                | {"gain": table.gains.get(name, "-"), "attack": name or "-"}
            )
    return rows


def verdicts(found: Sequence[SensorTable]) -> list[str]:
    """By suite, model and attack with several fusions that did not fail, the safest one and what it costs clean."""
    said = []
    for group, model in dict.fromkeys((table.group, table.model) for table in found):
        own = [table for table in found if (table.group, table.model) == (group, model)]
        for name in dict.fromkeys(name for table in own for name in table.attacks):
            scores = {
                table.fusion: (any_1, table.clean)
                for table in own
                if (any_1 := table.rows.get(name, {}).get("any 1"))
                and table.clean
                and any_1.exact
                and table.clean.exact
            }
            if len(scores) > 1:
                said.append(f"{model}, {name}: {_compare(scores)}.")
    return said


def _compare(scores: Mapping[str, tuple[Score, Score]]) -> str:
    """The safest fusion of several, by their scores under any 1 and clean, with the next one and McNemar's test."""
    safest, other = sorted(scores, key=lambda name: [-score.share for score in scores[name]])[:2]
    (robust, clean), (rival, its) = scores[safest], scores[other]
    best = max(scores, key=lambda name: scores[name][1].share)
    cost = 100 * (scores[best][1].share - clean.share)
    costs = f"{cost:.1f} points less clean than {best}" if cost > 0 else "at no cost clean"
    test = ""
    if robust.hits is not None and rival.hits is not None:
        test = f", p {format_p(Pairs.of(rival.hits > 0, robust.hits > 0).p)}"
    safer = f"{100 * robust.share:.1f}% on any 1 (next {other}, {100 * rival.share:.1f}%{test})"
    if (robust.share, clean.share) == (rival.share, its.share):
        alike = (name for name, own in scores.items() if [one.share for one in own] == [robust.share, clean.share])
        share = f"{100 * robust.share:.1f}% on any 1 and {100 * clean.share:.1f}% clean"
        return f"the safest fusion is undecided: {', '.join(alike)} have {share}"
    return f"the safest fusion is {safest}, {safer}, {costs}"


def sections(found: Sequence[Table]) -> list[str]:
    """Markdown: what the numbers mean, a summary, and a table per model and fusion; empty without such tasks."""
    own = sensor_tables(found)
    if not own:
        return []
    parts = ["## Sensors together", READING]
    for group, those in groups(own).items():
        parts += [f"### {group}", grid(summary(those)), "\n".join(f"- {line}" for line in verdicts(those))]
    for table in own:
        parts += [f"### {table.title}", grid(table.grid())]
    return [part for part in parts if part]
