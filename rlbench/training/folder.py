"""The folder of a training run, whose path is a model name once the run is finished.

recipe.yaml is written first, then metrics.jsonl, weights and states, and card.yaml last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml

from rlbench.core import Modality
from rlbench.core.errors import RLBenchError
from rlbench.core.files import LOCK, TEMPORARY, clear, hold_lock, place, placing
from rlbench.encoders.models import resolve
from rlbench.training.curves import draw_curves
from rlbench.training.lineage import PASSES
from rlbench.training.loop import Step
from rlbench.training.recipe import RANDOM, Recipe
from rlbench.training.state import writing
from rlbench.training.stream import Run
from rlbench.training.types import Trainable

SUMMARY = "Trained by rlbench train {method}."


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training run; one process at a time writes it.

    Attributes:
        path: the folder.
        method: the name of the training method.
        recipes: the recipes by modality.
        data: a description of the training data.
        checksums: the checksums of the data and of the models that the run starts from (see `compute_checksums`).
    """

    path: Path
    method: str
    recipes: Mapping[Modality, Recipe]
    data: str
    checksums: Mapping[str, str]

    @property
    def backbone(self) -> str:
        return next(iter(self.recipes.values())).backbone

    def _recipe_text(self) -> str:
        # the method's name too, since a recipe may extend another method's
        own = {modality: asdict(recipe) for modality, recipe in self.recipes.items()}
        text = {"method": self.method, "data": self.data, "recipes": own, "checksums": dict(self.checksums)}
        return yaml.safe_dump(text, sort_keys=False)

    def check(self) -> Literal["new", "unfinished", "finished"]:
        """Tells whether the folder holds this run, and whether it is finished.

        Raises:
            RLBenchError: The folder holds another run or other files, or the data or a model that the run starts from
                has changed since it began.
        """
        if not os.path.lexists(self.path):
            return "new"
        found, own = self._read_recipe(), yaml.safe_load(self._recipe_text())
        if found is None:
            return "new"
        finished = (self.path / "card.yaml").exists()
        what = "exists: a finished run" if finished else "holds an unfinished run"
        sums, now = found.pop("checksums", None), own.pop("checksums")
        if _complete(found) != own or not isinstance(sums, dict):
            raise RLBenchError(f"{self.path} {what} of another recipe; name another folder with --out")
        if changed := [name for name, value in now.items() if value != sums.get(name, value)]:
            since = f"but {' and '.join(changed)} changed since it began"
            raise RLBenchError(f"{self.path} {what} of this recipe, {since}; name another folder with --out")
        return "finished" if finished else "unfinished"

    def _read_recipe(self) -> dict[str, Any] | None:
        """Reads recipe.yaml; None if the folder is empty.

        Raises:
            RLBenchError: The folder holds other files.
        """
        try:
            return dict(yaml.safe_load((self.path / "recipe.yaml").read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.is_dir() and all(map(_is_temporary, self.path.iterdir())):
                return None
        except (OSError, ValueError, TypeError, yaml.YAMLError):
            pass
        raise RLBenchError(f"{self.path} exists; name another run folder with --out")

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Creates the folder if it is missing, and locks it; a folder that stays empty is removed at the end.

        Raises:
            RLBenchError: Another process has locked it, or it can't be written.
        """
        with ExitStack() as stack, writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold_lock(self.path / LOCK, wait=False))
            except TimeoutError:
                busy = f"{self.path} is being trained by another process"
                raise RLBenchError(f"{busy}; wait for it, or name another folder with --out") from None
            for folder in (self.path, self.path / "best"):
                clear(folder)
            try:
                yield
            finally:
                if not (self.path / "recipe.yaml").exists() or (self.path / "card.yaml").exists():
                    with suppress(OSError):
                        (self.path / LOCK).unlink()
                        self.path.rmdir()  # only where it is empty

    def create(self) -> None:
        """Writes recipe.yaml and makes the folder of the best weights."""
        with writing(self.path):
            place(self.path / "recipe.yaml", self._recipe_text().encode())
            (self.path / "best").mkdir(exist_ok=True)

    def state_path(self, modalities: Mapping[Modality, object]) -> Path:
        """Returns the path of the state of modalities that are trained together."""
        return self.path / f"state-{'-'.join(modalities)}.pt"

    def log(self, step: Step) -> None:
        """Appends a line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        values = {name: value for name, value in asdict(step).items() if name != "cosine" or value is not None}
        with writing(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def drop_steps(self, modality: Modality, after: int) -> None:
        """Removes a modality's lines after that step from metrics.jsonl; these steps will run again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        earlier = [line for line in lines if not _is_later(line, modality, after)]
        with writing(path):
            place(path, "".join(f"{line}\n" for line in earlier).encode())

    def save_weights(self, encoder: Trainable, modality: Modality, *, best: bool = False) -> dict[str, Any]:
        """Saves a tower and returns the card's entry of the file."""
        return save_tower(encoder, modality, self._weights(modality, best=best))

    def has_best(self, modality: Modality, entry: Mapping[str, Any]) -> bool:
        """Whether the saved best weights are those of a card's entry; after a kill, they may be newer."""
        path = self._weights(modality, best=True)
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry.get("sha256")

    def _weights(self, modality: Modality, *, best: bool) -> Path:
        return self.path / ("best" if best else "") / f"{self.backbone}-{modality}.safetensors"

    def finish(self, last: Mapping[Modality, Any], best: Mapping[Modality, Any]) -> None:
        """Plots the curves, writes the cards, card.yaml of the run last, and removes the states."""
        title = f"{self.method}: {self.data}"
        with writing(self.path):
            with placing(self.path / "curves.png") as temporary:
                draw_curves(self.path / "metrics.jsonl", temporary, title=title)
            self._card(self.path / "best", best)
            self._card(self.path, last)
        self.remove_states()

    def remove_states(self) -> None:
        """Removes the states, which a finished run no longer needs."""
        for state in self.path.glob("state-*"):
            state.unlink(missing_ok=True)

    def _card(self, folder: Path, entries: Mapping[Modality, Any]) -> None:
        save_card(folder, self.method, SUMMARY.format(method=self.method), self.backbone, self.data, entries)


def save_tower(encoder: Trainable, modality: Modality, path: Path) -> dict[str, Any]:
    """Saves a tower and returns the card's entry of the file. Raises: RLBenchError: it can't be written."""
    with writing(path), placing(path) as temporary:
        encoder.save(modality, temporary)
        data = temporary.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def save_card(folder: Path, name: str, summary: str, backbone: str, data: str, entries: Mapping[Modality, Any]) -> None:
    """Writes the card that makes a folder a model.

    Args:
        folder: has the files of the entries.
        name: the baseline's name.
        summary: one line.
        backbone: the size of the encoder.
        data: the training data, in words.
        entries: the files by modality, as `save_tower` returns them, and how they were trained.
    """
    family = resolve(f"languagebind:{backbone}").family
    backbones = {backbone: {"family": family, "data": data, "modalities": dict(entries)}}
    card = {"baseline": name, "summary": summary, "backbones": backbones}
    place(folder / "card.yaml", yaml.safe_dump(card, sort_keys=False).encode())


def _complete(run: dict[str, Any]) -> dict[str, Any]:
    """Gives a run's recipes the defaults of the fields that they lack, which are newer than the run."""
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    recipes = run.get("recipes")
    if not isinstance(recipes, dict) or not all(isinstance(one, dict) for one in recipes.values()):
        return run
    return {**run, "recipes": {modality: {**defaults, **one} for modality, one in recipes.items()}}


def _is_later(line: str, modality: Modality, after: int) -> bool:
    try:
        step = json.loads(line)
        return bool(step["modality"] == modality and step["step"] > after)
    except (ValueError, TypeError, KeyError):
        return True  # an incomplete line: the run was killed while it wrote it


def _is_temporary(path: Path) -> bool:
    """Whether a file exists only while a run is being written."""
    return path.name == LOCK or path.name.startswith(TEMPORARY)


def describe_training(run: Run, step: int, val: Mapping[str, float], seconds: float, processes: int) -> dict[str, Any]:
    """Describes for a card how weights were trained.

    Args:
        run: the run.
        step: the number of steps.
        val: the validation accuracies by name, in [0, 1].
        seconds: the training time.
        processes: the number of processes.

    Returns:
        Fields of the card; `passes` counts the run's own passes, and `since` all passes since the backbone.
    """
    recipe = run.recipe
    own = [n * step * recipe.batch for n in recipe.passes()]
    before = {} if run.start is None else dict(run.start.trained)
    total = [n + int(before.get("since", {}).get(name, 0)) for n, name in zip(own, PASSES, strict=True)]
    trained = {
        "seed": recipe.seed,
        "init": recipe.init,
        "data": run.streams[0].data.task.fingerprint(),
        "examples": run.streams[0].data.size,
        "sees": _list_seen(run) + [text for text in before.get("sees", []) if text not in _list_seen(run)],
        "step": step,
        "passes": dict(zip(PASSES, own, strict=True)),
        "validation": {name: round(share, 4) for name, share in val.items()},
        "seconds": round(seconds),
        "processes": processes,
        "torch": version("torch"),
    }
    if run.start is not None:
        trained["since"] = dict(zip(PASSES, total, strict=True))
        trained["init_sha256"] = run.start.sha256
    return trained


def _list_seen(run: Run) -> list[str]:
    """Lists what training sees of examples that measure it, and what a fine-tuning sees of unseen classes."""
    labelled, found = run.streams[0], list(run.repeats)
    if run.recipe.init == RANDOM:
        return found
    if len(labelled.classes) > len(labelled.data.task.classes):
        found.append("names of unseen classes")
    return found + (["unlabelled examples of unseen classes"] if run.recipe.replay else [])
