"""The dry run of a training: `rlbench train --dry-run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from rlbench.core import Modality, Suite
from rlbench.training.examples import count_epoch_examples
from rlbench.training.loop import Trainer
from rlbench.training.memory import Memory
from rlbench.training.prepare import check_shares, prepare
from rlbench.training.recipe import Recipe, describe
from rlbench.training.run import limit_threads, make_accelerator, open_run_folder
from rlbench.training.selection import group_recipes, load_recipes
from rlbench.training.splits import warn_of_splits
from rlbench.training.state import read_state


def rehearse(
    method: str,
    *,
    modalities: Sequence[Modality] | None = None,
    stage: int | None = None,
    backbone: str = "mini",
    suite: Suite | None = None,
    out: Path | str | None = None,
    overrides: Mapping[str, object] | None = None,
    together: bool = False,
    device: str = "auto",
    announce: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Describes what `train` would do: a line per modality with its steps, passes and estimated time.

    The estimate comes from timing a step. The arguments are those of `train`; None for `out` means a new folder.

    Raises:
        RLBenchError: see `train`, for all that it checks before its first step.
    """
    recipes = load_recipes(method, modalities, stage, backbone, suite, overrides)
    folder, done, lines = open_run_folder(method, recipes, suite, Path(out or "")), "new", []
    group_recipes(recipes, together)
    if out is not None and (done := folder.check()) == "finished":
        return [f"{out} is finished: nothing is left to train"]
    for modality, recipe in recipes.items():
        accelerator = make_accelerator(device, recipe, announce)
        check_shares(recipe, accelerator.num_processes)
        with limit_threads(recipe):
            seconds = _time_example(recipe, modality, suite, accelerator)
        state = (
            read_state(folder.state_path(recipes if together else {modality: recipe})) if done == "unfinished" else None
        )
        steps = count_steps(recipe, suite)
        left = steps if state is None else 0 if "entries" in state else max(0, steps - int(state["step"]))
        forwards, backwards = (n * left * recipe.batch for n in recipe.passes())
        minutes = left * recipe.batch * seconds / 60
        lines.append(
            f"{method}, {modality}: {describe(recipe)}; {_format_steps(left, steps)} of {recipe.batch}, {forwards:,} "
            f"forward and {backwards:,} backward passes, about {minutes:.1f} min, and the validation"
        )
    return lines


def count_steps(recipe: Recipe, suite: Suite | None) -> int:
    """Counts the steps of a run."""
    epoch = count_epoch_examples(suite.task.size("train") if suite else None, recipe.examples)
    return recipe.steps or recipe.epochs * max(1, epoch // (recipe.batch - round(recipe.replay * recipe.batch)))


def _format_steps(left: int, steps: int) -> str:
    return f"{steps:,} steps" if left == steps else f"the last {left:,} of {steps:,} steps"


def _time_example(recipe: Recipe, modality: Modality, suite: Suite | None, accelerator: Accelerator) -> float:
    """Measures the seconds that an example takes in a step, by its passes with one step of the adversary."""
    whole = recipe.backbone.startswith("mini")
    batch = recipe.batch if whole else min(recipe.batch, 2 * recipe.accumulate * accelerator.num_processes)
    small = replace(recipe, batch=batch, examples=batch, replay=0.0, epochs=3, steps=0, attack_steps=1)
    run = prepare(small, modality, suite)
    warn_of_splits(run.streams[0].data.task, run.repeats)
    trainer = Trainer(run, accelerator, Memory())
    trainer.start(0)
    trainer.step(0)  # warm-up
    start = time.monotonic()
    trainer.step(1)
    return (time.monotonic() - start) / batch * sum(recipe.passes()) / sum(small.passes())
