"""Experiment trackers, by Hugging Face's accelerate: wandb, trackio, tensorboard, mlflow.

Each group of modalities that is trained together is one run of a tracker, with the recipe as its configuration. The
losses and validation accuracies of a modality have its name in front: `thermal/loss`, `thermal/val/robust`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from rlbench.core import Modality
from rlbench.core.errors import RLBenchError, UnknownName, first_line
from rlbench.training.loop import Step
from rlbench.training.recipe import Recipe

TRACKERS = ("wandb", "trackio", "tensorboard", "mlflow")
PROJECT = "rlbench"


@dataclass(frozen=True)
class Tracking:
    """Where a training is tracked.

    Attributes:
        names: the trackers, of TRACKERS; empty: nowhere.
        group: what groups runs, such as a campaign; "" for none.
        run: the name of the run; "" for that of its folder.
    """

    names: tuple[str, ...] = ()
    group: str = ""
    run: str = ""


UNTRACKED = Tracking()


def check_trackers(names: Sequence[str]) -> None:
    """Raises: UnknownName: no such tracker. RLBenchError: its package is not installed, or accelerate is too old."""
    from accelerate.utils import LoggerType

    for name in names:
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise RLBenchError(
                f"--log-with {name} needs the package {name}, which is not installed; run: pip install {name}, "
                "or for all trackers: pip install 'rlbind-bench[trackers]'"
            )
        if name not in LoggerType.list():
            raise RLBenchError(f"--log-with {name} needs a newer accelerate; run: pip install --upgrade accelerate")


def find_log_folder(out: Path | str) -> Path:
    """The folder of a run's files for tensorboard."""
    return Path(out) / "tensorboard"


@contextmanager
def track(
    tracking: Tracking, accelerator: Accelerator, method: str, out: Path, recipes: Mapping[Modality, Recipe]
) -> Iterator[Callable[[Step], None]]:
    """A run of the accelerator's trackers, which ends with the block.

    Args:
        tracking: the names.
        accelerator: made with `log_with`.
        method: the training method.
        out: the run folder.
        recipes: the recipes of the modalities that are trained together.

    Yields: a function that logs a step.

    Raises:
        RLBenchError: a tracker can't start.
    """
    if not tracking.names:
        yield lambda step: None
        return
    name = tracking.run or out.name
    named = {"name": name, "group": tracking.group or None}
    tags = {"mlflow.note.content": method, **({"group": tracking.group} if tracking.group else {})}
    arguments = {
        "wandb": {**named, "dir": str(out)},
        "trackio": named,
        "mlflow": {"run_name": name, "tags": tags},
    }
    try:
        with redirect_stdout(sys.stderr):  # trackio prints
            accelerator.init_trackers(PROJECT, _flatten(method, recipes), arguments)
    except Exception as error:  # a tracker may raise anything, such as for a missing login
        raise RLBenchError(f"--log-with {' '.join(tracking.names)} can't start: {first_line(error)}") from error
    try:
        yield lambda step: accelerator.log(_list_values(step), step=step.step)
    finally:
        with redirect_stdout(sys.stderr):
            for tracker in accelerator.trackers:  # end_training would end the process group, too
                tracker.finish()
        accelerator.trackers.clear()


def _flatten(method: str, recipes: Mapping[Modality, Recipe]) -> dict[str, Any]:
    """The configuration, flat and with plain values, since tensorboard takes no others."""
    found: dict[str, Any] = {"method": method, "modalities": ", ".join(recipes)}
    for modality, recipe in recipes.items():
        front = f"{modality}/" if len(recipes) > 1 else ""
        for key, value in asdict(recipe).items():
            plain = isinstance(value, str | int | float)
            found[f"{front}{key}"] = value if plain else "" if value is None else json.dumps(value)
    return found


def _list_values(step: Step) -> dict[str, float]:
    values = {} if step.loss is None else {f"{step.modality}/loss": step.loss}
    values |= {} if step.cosine is None else {f"{step.modality}/cosine": step.cosine}
    return values | {f"{step.modality}/val/{name}": share for name, share in step.val.items()}
