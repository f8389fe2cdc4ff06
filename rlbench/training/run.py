"""`train`: trains a method by its recipe into a run folder, whose path is a model name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from rlbench.core import Modality, Suite
from rlbench.core.errors import RLBenchError
from rlbench.core.machine import device_of, peak_memory
from rlbench.training.folder import RunFolder, describe_training
from rlbench.training.loop import Step, Trainer
from rlbench.training.memory import Memory
from rlbench.training.prepare import check_shares, compute_checksums, prepare
from rlbench.training.recipe import Recipe, describe
from rlbench.training.selection import group_recipes, load_recipes
from rlbench.training.splits import warn_of_splits
from rlbench.training.state import read_state, write_state
from rlbench.training.stream import Run
from rlbench.training.trackers import UNTRACKED, Tracking, check_trackers, find_log_folder, track
from rlbench.training.validation import ValidationSet, render_validation, validate

Report = Callable[[Step], None]


def train(
    method: str,
    *,
    modalities: Sequence[Modality] | None = None,
    stage: int | None = None,
    backbone: str = "mini",
    suite: Suite | None = None,
    out: Path | str,
    overrides: Mapping[str, object] | None = None,
    together: bool = False,
    device: str = "auto",
    tracking: Tracking = UNTRACKED,
    report: Report = lambda step: None,
    announce: Callable[[str], None] = lambda text: None,
) -> Path:
    """Trains a method for some modalities; under `accelerate launch`, in all its processes.

    Args:
        method: a folder of recipes in baselines/, such as "rlbind".
        modalities: what to train; None: the suite's modality, or all that the mini backbone has.
        stage: the stage of a method with several; None: the last one.
        backbone: "mini" or "vit-l-14".
        suite: train on its train split instead of the modality's procedural world.
        out: the run folder. An unfinished run of the same recipes and data is resumed.
        overrides: fields that replace the recipe's; "objective.tau" is a field of its objective.
        together: train all modalities step by step, with shared class means, instead of one after the other.
        device: "auto", "cpu" or "cuda".
        tracking: the trackers that log every step, and the names of the run there.
        report: called after every step, and while examples are loaded.
        announce: called with a line before each modality (its start and length) and after it (time and memory).

    Returns:
        `out`, which is a model; `out/best` is one too, with the weights that were most robust in validation.

    Raises:
        RLBenchError: `out` holds another run, its data has changed, or another process trains it; a recipe is wrong
            (see `prepare`); the loss is not finite; or a tracker can't start.
    """
    recipes = load_recipes(method, modalities, stage, backbone, suite, overrides)
    accelerator = make_accelerator(device, first := next(iter(recipes.values())), announce, tracking, out)
    folder = open_run_folder(method, recipes, suite, Path(broadcast_object_list([str(out)])[0]))
    groups = group_recipes(recipes, together)
    for recipe in recipes.values():
        check_shares(recipe, accelerator.num_processes)
    if folder.check() == "finished":
        return _skip(folder, announce)
    speaking = (report, announce) if accelerator.is_main_process else _MUTE
    with _claim(folder, accelerator), limit_threads(first):
        _train_groups(groups, suite, folder, accelerator, tracking, *speaking)
    return folder.path


def _skip(folder: RunFolder, announce: Callable[[str], None]) -> Path:
    """Says that a run is finished, and removes what a kill after its end left."""
    folder.remove_states()
    announce(f"{folder.path} is finished: nothing is left to train")
    return folder.path


def _train_groups(
    groups: Sequence[Mapping[Modality, Recipe]],
    suite: Suite | None,
    folder: RunFolder,
    accelerator: Accelerator,
    tracking: Tracking,
    report: Report,
    announce: Callable[[str], None],
) -> None:
    """Trains the groups of modalities that are not finished, one after the other."""
    if (status := folder.check()) == "finished":
        return  # another process finished it just now
    if status == "unfinished":
        announce(f"{folder.path} is not finished: resuming it")
    accelerator.wait_for_everyone()
    done = [_train(group, suite, folder, accelerator, tracking, report, announce) for group in groups]
    if accelerator.is_main_process:
        last, best = ({m: entry[k] for group in done for m, entry in group.items()} for k in range(2))
        folder.finish(last, best)
    accelerator.wait_for_everyone()


@contextmanager
def _claim(folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Locks the folder in the main process. Raises: RLBenchError, in all processes, if another run has locked it."""
    refused = ""
    with ExitStack() as stack:
        if accelerator.is_main_process:
            try:
                stack.enter_context(folder.claim())
            except RLBenchError as error:
                refused = str(error)
        if refused := broadcast_object_list([refused])[0]:
            raise RLBenchError(refused)
        yield


def open_run_folder(method: str, recipes: Mapping[Modality, Recipe], suite: Suite | None, out: Path) -> RunFolder:
    """Makes the RunFolder of a run, with the checksums of its data and models. Raises: see `prepare`."""
    data = f"the train split of suite {suite.name}" if suite else "procedural worlds"
    sums = {name: sha for m, recipe in recipes.items() for name, sha in compute_checksums(recipe, m, suite).items()}
    return RunFolder(out, method, recipes, data, sums)


_MUTE: tuple[Report, Callable[[str], None]] = (lambda step: None, lambda text: None)
Entries = dict[Modality, tuple[dict[str, Any], dict[str, Any]]]  # the cards' entries of the last and the best weights


def make_accelerator(
    device: str, recipe: Recipe, announce: Callable[[str], None], tracking: Tracking = UNTRACKED, out: Path | str = ""
) -> Accelerator:
    check_trackers(tracking.names)
    AcceleratorState._reset_state()  # else an earlier run in this process decides the precision
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= set(os.environ) and "WORLD_SIZE" not in os.environ:
        # as under `accelerate launch --cpu --num_processes 2`, which does not say so
        announce("training in one process: accelerate launch starts several only with --multi_gpu, on CPUs too")
    if device == "cuda":
        device_of(device)  # raises where there is none
    return Accelerator(
        cpu=device == "cpu" or not torch.accelerator.is_available(),  # else torchrun's processes don't find each other
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        log_with=list(tracking.names) or None,
        project_dir=find_log_folder(out),
    )


@contextmanager
def limit_threads(recipe: Recipe) -> Iterator[None]:
    """Within the block, torch uses the recipe's number of CPU threads."""
    before = torch.get_num_threads()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    recipes: Mapping[Modality, Recipe],
    suite: Suite | None,
    folder: RunFolder,
    accelerator: Accelerator,
    tracking: Tracking,
    report: Report,
    announce: Callable[[str], None],
) -> Entries:
    """Trains modalities step by step together; returns their entries in the cards."""
    state = read_state(folder.state_path(recipes))
    if state is not None and "entries" in state:
        return dict(state["entries"])
    runs = []
    for modality, recipe in recipes.items():
        announce(f"{folder.method}, {modality}: {describe(recipe)}")
        runs.append(prepare(recipe, modality, suite, _reader(modality, report)))
    memory = Memory()
    trainings = {run.modality: _Training(run, Trainer(run, accelerator, memory), folder, report) for run in runs}
    if accelerator.is_main_process:
        for run in runs:
            warn_of_splits(run.streams[0].data.task, run.repeats)
        folder.create()
    accelerator.wait_for_everyone()
    begin = 0 if state is None else int(state["step"])
    for modality, training in trainings.items():
        training.start(begin, None if state is None else state[modality])
    with track(tracking, accelerator, folder.method, folder.path, recipes) as log:
        for k in range(begin, max(run.steps for run in runs)):
            measured = [training.step(k, log) for training in trainings.values() if k < training.run.steps]
            if any(measured) and accelerator.is_main_process:
                write_state(folder.state_path(recipes), {"step": k + 1, **{m: t.state() for m, t in trainings.items()}})
    entries = {modality: training.entries() for modality, training in trainings.items()}
    for modality, training in trainings.items():
        peak = peak_memory(accelerator.device.type) / 1e9
        announce(f"{folder.method}, {modality}: {training.seconds():.0f} s, at most {peak:.1f} GB of memory")
    if accelerator.is_main_process:
        write_state(folder.state_path(recipes), {"entries": entries})
    return entries


def _reader(modality: Modality, report: Report) -> Callable[[int, int], None]:
    return lambda done, of: report(Step(modality, done, of, what="example"))


class _Training:
    """The training of one modality: its trainer, validation set, and best weights so far."""

    def __init__(self, run: Run, trainer: Trainer, folder: RunFolder, report: Report) -> None:
        self.run, self.trainer, self.folder, self.report = run, trainer, folder, report
        self.main = trainer.accelerator.is_main_process
        self.started, self.before = time.monotonic(), 0.0
        self.data: ValidationSet | None = None
        self.val: dict[str, float] = {}
        self.best: dict[str, Any] = {}

    def step(self, k: int, log: Report) -> bool:
        """Does a step and logs it; returns whether a validation followed it."""
        loss, every = self.trainer.step(k), self.run.recipe.validate or self.run.steps_per_epoch
        due = (k + 1) % every == 0 or k + 1 == self.run.steps
        if due:
            self.trainer.check_weights(k + 1)
        if due and self.main:
            self.measure(k + 1)
        if self.main:
            val, cosine = self.val if due else {}, self.trainer.cosine
            step = Step(self.run.modality, k + 1, self.run.steps, loss, val, cosine=cosine)
            self.folder.log(step)
            log(step)
            self.report(step)
        return due

    def measure(self, step: int) -> None:
        """Validates the current weights and saves them if they are the most robust so far, or if nothing can tell."""
        run = self.run
        if self.data is None:
            self.data = render_validation(run.encoder, run.modality, run.suite, run.recipe)
        with self.trainer.result_weights():
            self.val = validate(self.data, self.trainer.accelerator.device)
            if not self.val or not self.best or self.val["robust"] > self.best["trained"]["validation"]["robust"]:
                written = self.folder.save_weights(run.encoder, run.modality, best=True)
                self.best = {**written, "trained": self.describe_training(step)}

    def seconds(self) -> float:
        """Returns the training time, including that before an interruption."""
        return self.before + time.monotonic() - self.started

    def describe_training(self, step: int) -> dict[str, Any]:
        return describe_training(self.run, step, self.val, self.seconds(), self.trainer.accelerator.num_processes)

    def entries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Saves the last weights; returns the cards' entries of the last and of the best weights."""
        if not self.main:
            return {}, {}
        with self.trainer.result_weights():
            written = self.folder.save_weights(self.run.encoder, self.run.modality)
        return {**written, "trained": self.describe_training(self.run.steps)}, self.best

    def state(self) -> dict[str, Any]:
        return {"trainer": self.trainer.state(), "best": self.best, "val": self.val, "seconds": self.seconds()}

    def start(self, step: int, state: dict[str, Any] | None) -> None:
        """Starts at `step`, from the state before it if there is one."""
        if state is not None:
            self.trainer.restore(state["trainer"])
            self.val, self.before = state["val"], state["seconds"]
            if self.folder.has_best(self.run.modality, state["best"]):  # else the run was killed between the two files
                self.best = state["best"]
        if self.main:
            self.folder.drop_steps(self.run.modality, step)
        self.trainer.start(step)
