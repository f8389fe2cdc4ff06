"""The file of a campaign: its rounds and jobs become the runs to train.

    modalities: [thermal, audio]            # every job runs for each of them
    rounds: {"0": {seed: 0}, "1": {seed: 1}}   # and for each round, with its settings
    set: {validation: 1000}                 # the settings of all jobs
    jobs:
      backbone: {method: languagebind}
      fare: {method: fare, set: {init: "@backbone", original: "@backbone"}}
      rlbind: {method: rlbind, stage: 2, set: {init: "@fare", original: "@0/backbone"}}

A job's folder is OUT/ROUND/MODALITY/JOB. "@job" in a setting is the folder of that job in the same round and
modality, "@round/job" in another round; the job waits for it. A job's `rounds` and `modalities` limit where it runs.
`suite`, in a job or a round, trains on a suite's data. A round's `modalities` replace the file's. `backbone` is that of
all jobs. With `together: true`, a job trains its modalities together, in the folder OUT/ROUND/together/JOB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from rlbench.core import Modality, callables
from rlbench.core.errors import FieldError, quote
from rlbench.core.yaml_source import YamlPart, read
from rlbench.encoders.models import DEFAULT_BACKBONE, resolve_plain
from rlbench.training.recipe import Recipe, load_recipe
from rlbench.training.trackers import UNTRACKED, Tracking, check_trackers


@dataclass(frozen=True, kw_only=True)
class _Job:
    method: str
    stage: int | None = None
    suite: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[str, ...] | None = None
    modalities: tuple[Modality, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _Round:
    modalities: tuple[Modality, ...] | None = None
    suite: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Campaign:
    modalities: tuple[Modality, ...]
    jobs: Mapping[str, Any]
    rounds: Mapping[str, Any] = field(default_factory=lambda: {"0": {}})
    set: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = DEFAULT_BACKBONE
    together: bool = False


@dataclass(frozen=True)
class CampaignRun:
    """One training run of a campaign.

    Attributes:
        name: ROUND/MODALITY/JOB, or ROUND/together/JOB.
        modalities: what is trained; several of them together.
        settings: the fields that replace the recipe's.
        after: the names of the runs it waits for.
        tracking: the trackers, and the campaign's and the run's names there.
    """

    name: str
    method: str
    backbone: str
    stage: int | None
    modalities: tuple[Modality, ...]
    suite: str | None
    settings: Mapping[str, object]
    after: frozenset[str]
    tracking: Tracking = UNTRACKED

    @property
    def together(self) -> bool:
        return len(self.modalities) > 1

    def load_recipes(self) -> dict[Modality, Recipe]:
        """Loads the recipes by modality. Raises: see `load_recipe`."""
        found: dict[Modality, Recipe] = {}
        for one in self.modalities:
            found[one] = load_recipe(
                self.method, self.stage, modality=one, backbone=self.backbone, overrides=self.settings
            )
        return found

    def arguments(self, out: Path) -> list[str]:
        """Returns the arguments of the command `rlbench` for this run."""
        method = self.method if self.backbone == DEFAULT_BACKBONE else f"{self.method}:{self.backbone}"
        words = ["train", method, *(word for m in self.modalities for word in ("--modality", m))]
        words += [*(["--together"] if self.together else []), "--out", str(out / self.name), "--quiet"]
        if self.stage is not None:
            words += ["--stage", str(self.stage)]
        if self.suite is not None:
            words += ["--suite", self.suite]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        if self.tracking.names:
            words += [word for name in self.tracking.names for word in ("--log-with", name)]
            words += ["--group", self.tracking.group, "--run-name", self.tracking.run]
        return words


def read_campaign(path: Path, out: Path, *, log_with: Sequence[str] = ()) -> list[CampaignRun]:
    """Reads a campaign's file into its runs, in the file's order, round by round.

    Args:
        path: the file.
        out: the campaign's folder, whose name groups the runs in trackers.
        log_with: the trackers of all runs (see `trackers.TRACKERS`).

    Raises:
        RLBenchError: A tracker is not installed.
        FieldError: The file can't be read, or a key, a value or a name of a job is wrong.
        UnknownName: There is no such method or modality.
    """
    check_trackers(log_with)
    whole = read(path, "campaign", FieldError)
    file, parts = whole.make(_Campaign), whole.items()
    jobs = {_name(part): part.make(_Job) for part in parts["jobs"].items().values()}
    rounds = {"0": _Round()}
    if "rounds" in parts:
        rounds = {_name(part): _round(part) for part in parts["rounds"].items().values()}
    _check_jobs(file, jobs, rounds, parts["jobs"])
    tasks = []
    for turn, own in rounds.items():
        modalities = own.modalities or file.modalities
        for group in [modalities] if file.together else [(modality,) for modality in modalities]:
            for name, job in jobs.items():
                chosen = tuple(m for m in group if m in (job.modalities or modalities))
                if chosen and turn in (job.rounds or rounds):
                    settings = {**file.set, **own.set, **job.set}
                    job = replace(job, suite=job.suite or own.suite)
                    tasks.append(_task(name, job, turn, chosen, settings, out, file))
    _check_order(tasks, parts["jobs"])
    campaign = out.absolute().name
    return [replace(task, tracking=Tracking(tuple(log_with), campaign, task.name)) for task in tasks]


def _check_jobs(file: _Campaign, jobs: Mapping[str, _Job], rounds: Mapping[str, _Round], part: YamlPart) -> None:
    """Checks that there are jobs, and that the rounds and modalities that they name are the file's, each once."""
    if not jobs:
        part.fail("there are no jobs")
    chosen = [one.modalities or file.modalities for one in rounds.values()]
    if twice := next((m for some in chosen for m in some if some.count(m) > 1), None):
        part.fail(f"the modality {twice} of these jobs is given twice")
    known = {*rounds, *(m for some in chosen for m in some)}
    for name, job in jobs.items():
        for one in (*(job.rounds or ()), *(job.modalities or ())):
            if one not in known:
                allowed = ", ".join(sorted(known))
                part.items()[name].fail(f"{quote(one)} is not a round or a modality of this file: {allowed}")


def _name(part: YamlPart) -> str:
    """Returns the name of a round or job, which is also its folder's name."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", part.key):
        part.fail("a name must be letters, digits, '.', '_' and '-'")
    return part.key


def _round(part: YamlPart) -> _Round:
    """Reads a round: null, or a mapping of settings, `modalities` and `suite`."""
    parts = {} if part.value() is None else part.items()
    settings = {key: parts.pop(key).value() for key in list(parts) if key not in ("modalities", "suite")}
    return part.make(_Round, parts, set=settings)


def _check_order(tasks: Sequence[CampaignRun], jobs: YamlPart) -> None:
    """Checks that every run starts from runs of the file, and that none waits for itself."""
    known = {task.name for task in tasks}
    for task in tasks:
        task.load_recipes()
        if task.after - known:
            jobs.fail(f"{task.name} starts from {quote(min(task.after - known))}, which is not a job of this file")
    try:
        TopologicalSorter({task.name: task.after for task in tasks}).prepare()
    except CycleError as error:
        jobs.fail(f"{' waits for '.join(error.args[1])}")


def _task(
    name: str,
    job: _Job,
    turn: str,
    modalities: tuple[Modality, ...],
    settings: Mapping[str, object],
    out: Path,
    file: _Campaign,
) -> CampaignRun:
    folder, after = "together" if file.together else modalities[0], {}
    for key, value in settings.items():
        if key in ("init", "original") and callables.is_callable_name(str(value)):
            resolve_plain(str(value), "the campaign")
        if isinstance(value, str) and value.startswith("@"):
            before, _, other = value[1:].rpartition("/")
            after[key] = f"{before or turn}/{folder}/{other}"
    paths = {key: str((out / of).absolute()) for key, of in after.items()}
    return CampaignRun(
        f"{turn}/{folder}/{name}",
        job.method,
        file.backbone,
        job.stage,
        modalities,
        job.suite,
        {**settings, **paths},
        frozenset(after.values()),
    )
