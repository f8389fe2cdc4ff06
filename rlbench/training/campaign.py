"""Campaigns: many training runs from one file, in parallel. For a search, the bundled checkpoints, or many seeds.

    rlbench campaign baselines/campaigns/tuning.yaml --out runs/tuning

`campaign_file` describes the file. Running the campaign again keeps finished jobs and resumes interrupted ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from rlbench.core.errors import RLBenchError
from rlbench.core.executor import Executor, Lost, Report, Work, make_executor
from rlbench.core.files import LOCK, hold_lock
from rlbench.training.campaign_file import CampaignRun
from rlbench.training.data import load_train_suite
from rlbench.training.prepare import check_start
from rlbench.training.run import open_run_folder, train
from rlbench.training.selection import group_recipes, load_recipes
from rlbench.training.state import writing


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
        RLBenchError: A run can't start (see `check_runs`), a run failed (runs that do not depend on it are finished
            first), another campaign uses the folder, or the folder can't be written.
    """
    chosen = make_executor(executor, address)
    check_runs(tasks)
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


def check_runs(tasks: Sequence[CampaignRun]) -> None:
    """Checks the suite of every run, and what it starts from where no run of the campaign makes that.

    Raises:
        RLBenchError: A run could not start; it names the run.
    """
    for task in tasks:
        try:
            suite = None if task.suite is None else load_train_suite(task.suite)
            recipes = load_recipes(task.method, task.modalities, task.stage, task.backbone, suite, task.settings)
            for modality, recipe in recipes.items() if not task.after else ():
                check_start(recipe, modality, suite)
            group_recipes(recipes, task.together)
        except RLBenchError as error:
            raise RLBenchError(f"{task.name}: {error}") from error


def is_finished(task: CampaignRun, out: Path) -> bool:
    """Whether the run is finished.

    Raises:
        RLBenchError: The folder holds another run, or the model that the run starts from has changed.
    """
    if not (out / task.name / "card.yaml").is_file():
        return False
    suite = None if task.suite is None else load_train_suite(task.suite)
    return open_run_folder(task.method, task.load_recipes(), suite, out / task.name).check() == "finished"


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
            modalities=task.modalities,
            stage=task.stage,
            backbone=task.backbone,
            together=task.together,
            suite=None if task.suite is None else load_train_suite(task.suite),
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
