"""Campaigns: many training runs from one file, in parallel. For a search, the bundled checkpoints, or many seeds.

    rlbench campaign baselines/campaigns/tuning.yaml --out runs/tuning

    modalities: [thermal, audio]            # every job runs for each of them
    rounds: {"0": {seed: 0}, "1": {seed: 1}}   # and for each round, with its settings
    set: {validation: 1000}                 # the settings of all jobs
    jobs:
      backbone: {method: languagebind}
      fare: {method: fare, set: {init: "@backbone", original: "@backbone"}}
      rlbind: {method: rlbind, stage: 2, set: {init: "@fare", original: "@0/backbone"}}

A job's folder is OUT/ROUND/MODALITY/JOB. "@job" in a setting is the folder of that job in the same round and
modality, "@round/job" in another round; the job waits for it. A job's `rounds` and `modalities` limit where it runs.
`suite`, in a job or a round, trains on a suite's data. A round's `modalities` replace the file's. Running the campaign
again keeps finished jobs and resumes interrupted ones.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import torch

from rlbench.core import Modality, callables
from rlbench.core.errors import FieldError, RLBenchError, quote
from rlbench.core.executor import Executor, Lost, Report, Work, make_executor
from rlbench.core.files import LOCK, hold_lock
from rlbench.core.suite import load_suite
from rlbench.core.yaml_source import YamlPart, read
from rlbench.encoders.models import resolve_plain
from rlbench.training.recipe import load_recipe
from rlbench.training.run import open_run_folder, train
from rlbench.training.state import writing
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


@dataclass(frozen=True)
class CampaignRun:
    """One training run of a campaign.

    Attributes:
        name: ROUND/MODALITY/JOB.
        after: the names of the runs it waits for.
        tracking: the trackers, and the campaign's and the run's names there.
    """

    name: str
    method: str
    stage: int | None
    modality: Modality
    suite: str | None
    settings: Mapping[str, object]
    after: frozenset[str]
    tracking: Tracking = UNTRACKED

    def arguments(self, out: Path) -> list[str]:
        """Returns the arguments of the command `rlbench` for this run."""
        words = ["train", self.method, "--modality", self.modality, "--out", str(out / self.name), "--quiet"]
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
    tasks = []
    for turn, own in rounds.items():
        modalities = own.modalities or file.modalities
        for modality in modalities:
            for name, job in jobs.items():
                if turn in (job.rounds or rounds) and modality in (job.modalities or modalities):
                    settings = {**file.set, **own.set, **job.set}
                    job = replace(job, suite=job.suite or own.suite)
                    tasks.append(_task(name, job, turn, modality, settings, out))
    _check_order(tasks, parts["jobs"])
    group = out.absolute().name
    return [replace(task, tracking=Tracking(tuple(log_with), group, task.name)) for task in tasks]


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
        load_recipe(task.method, task.stage, modality=task.modality, overrides=task.settings)
        if task.after - known:
            jobs.fail(f"{task.name} starts from {quote(min(task.after - known))}, which is not a job of this file")
    try:
        TopologicalSorter({task.name: task.after for task in tasks}).prepare()
    except CycleError as error:
        jobs.fail(f"{' waits for '.join(error.args[1])}")


def _task(
    name: str, job: _Job, turn: str, modality: Modality, settings: Mapping[str, object], out: Path
) -> CampaignRun:
    after = {}
    for key, value in settings.items():
        if key in ("init", "original") and callables.is_callable_name(str(value)):
            resolve_plain(str(value), "the campaign")
        if isinstance(value, str) and value.startswith("@"):
            before, _, other = value[1:].rpartition("/")
            after[key] = f"{before or turn}/{modality}/{other}"
    paths = {key: str((out / of).absolute()) for key, of in after.items()}
    return CampaignRun(
        f"{turn}/{modality}/{name}",
        job.method,
        job.stage,
        modality,
        job.suite,
        {**settings, **paths},
        frozenset(after.values()),
    )


def run_campaign(
    tasks: Sequence[CampaignRun],
    out: Path,
    *,
    workers: int | None = None,
    device: str = "auto",
    executor: str = "local",
    address: str | None = None,
    report: Callable[[str, int, int], None],
) -> None:
    """Trains the runs that are not finished yet, each with one thread.

    A run whose worker dies is resumed by another, up to three times.

    Args:
        tasks: the runs.
        out: the campaign's folder; under Ray, on a file system that all nodes share.
        workers: how many runs at a time; None: one per GPU, or per CPU core.
        device: "auto", "cpu", "cuda" (every GPU) or one GPU.
        executor: where the runs are trained, such as "local" or "ray".
        address: of the Ray cluster.
        report: called after each run with its name, the number of finished runs, and the number of all runs.

    Raises:
        RLBenchError: A run failed (runs that do not depend on it are finished first), another campaign uses the folder,
            or the folder can't be written.
    """
    chosen = make_executor(executor, address)
    with ExitStack() as stack:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold_lock(out / LOCK, wait=False))
            except TimeoutError:
                raise RLBenchError(f"{out} is in use by another campaign; wait for it, or name another --out") from None
        devices = chosen.devices(device, workers)[: max(1, len(tasks))]
        work = Work(perform=train_run, shared=str(out.absolute()), devices=devices, tick=lambda passes, news: None)
        _run(tasks, out, chosen, work, report)


def is_finished(task: CampaignRun, out: Path) -> bool:
    """Whether the run is finished.

    Raises:
        RLBenchError: The folder holds another run, or the model that the run starts from has changed.
    """
    if not (out / task.name / "card.yaml").is_file():
        return False
    suite = None if task.suite is None else load_suite(task.suite)
    recipe = load_recipe(task.method, task.stage, modality=task.modality, overrides=task.settings)
    return open_run_folder(task.method, {task.modality: recipe}, suite, out / task.name).check() == "finished"


def _run(
    tasks: Sequence[CampaignRun],
    out: Path,
    executor: Executor,
    work: Work[CampaignRun, str | None],
    report: Callable[[str, int, int], None],
) -> None:
    done = {task.name for task in tasks if is_finished(task, out)}
    left = [task for task in tasks if task.name not in done]
    failed: list[str] = []
    ready: deque[CampaignRun] = deque()  # their models are trained

    def queue() -> None:
        ready.extend(task for task in left if task.after <= done)
        left[:] = [task for task in left if not task.after <= done]

    queue()
    with executor.open(work) as pool:
        for task, result in pool.run(ready):
            error = result.reason if isinstance(result, Lost) else result
            if error is None:
                done.add(task.name)
            else:
                failed.append(f"{task.name}: {error}")
            queue()
            report(task.name, len(done), len(tasks))
    if failed:
        raise RLBenchError("; ".join(failed))


def train_run(out: str, device: str, task: CampaignRun, ahead: CampaignRun | None, report: Report) -> str | None:
    """Trains a run, resuming what an earlier try left. Returns: why it failed; None if it did not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(
            task.method,
            modalities=[task.modality],
            stage=task.stage,
            suite=None if task.suite is None else load_suite(task.suite),
            out=Path(out) / task.name,
            overrides=task.settings,
            device=device,
            tracking=task.tracking,
        )
    except RLBenchError as error:
        return str(error)
    finally:
        torch.set_num_threads(threads)
    return None
