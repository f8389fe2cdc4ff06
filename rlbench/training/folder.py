"""A run's folder: recipe.yaml first, metrics and weights on the way, card.yaml last; then its path is a model name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from rlbench.checkpoints import resolve
from rlbench.core import Modality
from rlbench.errors import RLBenchError
from rlbench.learning import Trainable
from rlbench.training.curves import draw_curves
from rlbench.training.loop import Run, Step
from rlbench.training.recipe import RANDOM, Recipe

SUMMARY = "Trained by rlbench train {method}."


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run of `method`; `recipes` by modality; `data`: what it is trained on, in words."""

    path: Path
    method: str
    recipes: Mapping[Modality, Recipe]
    data: str

    @property
    def backbone(self) -> str:
        return next(iter(self.recipes.values())).backbone

    def _recipe_text(self) -> str:
        # the method's name comes along, since its recipes may be another's
        own = {modality: asdict(recipe) for modality, recipe in self.recipes.items()}
        return yaml.safe_dump({"method": self.method, "data": self.data, "recipes": own}, sort_keys=False)

    def check(self) -> bool:
        """Whether an unfinished run of the same recipes is there to go on with.

        Raises:
            RLBenchError: the folder is a finished run, another's, or something else.
        """
        if not self.path.exists():
            return False
        kept = self.path / "recipe.yaml"
        if (self.path / "card.yaml").exists() or not kept.is_file():
            raise RLBenchError(f"{self.path} exists; name another run folder with --out")
        if kept.read_text(encoding="utf-8") != self._recipe_text():
            raise RLBenchError(f"{self.path} holds an unfinished run of another recipe; name another folder with --out")
        return True

    def create(self) -> None:
        """Makes the folder, unless it is there to go on with."""
        try:
            (self.path / "best").mkdir(parents=True, exist_ok=True)
            (self.path / "recipe.yaml").write_text(self._recipe_text(), encoding="utf-8")
        except OSError as error:
            raise RLBenchError(f"{self.path} can't be written: {error.strerror}; name another with --out") from error

    def state(self, modalities: Mapping[Modality, object]) -> Path:
        """Where the state of modalities that are trained together is kept."""
        return self.path / f"state-{'-'.join(modalities)}.pt"

    def log(self, step: Step) -> None:
        """A line of metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(step)) + "\n")

    def forget(self, modality: Modality, after: int) -> None:
        """Takes back the lines of a modality's steps after that one: they will be made again."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if not _is_later(line, modality, after)]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, encoder: Trainable, modality: Modality, *, best: bool = False) -> dict[str, Any]:
        """Saves a tower; returns what a card says of the file."""
        path = self.path / ("best" if best else "") / f"{self.backbone}-{modality}.safetensors"
        encoder.save(modality, path)
        data = path.read_bytes()
        return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def finish(self, last: Mapping[Modality, Any], best: Mapping[Modality, Any]) -> None:
        """Draws the curves and writes the cards; what is needed to go on is removed."""
        draw_curves(self.path / "metrics.jsonl", self.path / "curves.png", title=f"{self.method}: {self.data}")
        self._card(self.path / "best", best)
        for state in self.path.glob("state-*"):
            state.unlink()
        self._card(self.path, last)

    def _card(self, folder: Path, entries: Mapping[Modality, Any]) -> None:
        family = resolve(f"languagebind:{self.backbone}").family
        backbone = {"family": family, "data": self.data, "modalities": dict(entries)}
        summary = SUMMARY.format(method=self.method)
        card = {"baseline": self.method, "summary": summary, "backbones": {self.backbone: backbone}}
        (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")


def _is_later(line: str, modality: Modality, after: int) -> bool:
    try:
        step = json.loads(line)
    except ValueError:
        return True  # the run was killed while it wrote the line
    return bool(step["modality"] == modality and step["step"] > after)


def provenance(run: Run, step: int, val: Mapping[str, float], seconds: float, processes: int) -> dict[str, Any]:
    """What a card says of how weights were trained; passes are per run and, in `since`, from the backbone on."""
    recipe = run.recipe
    own = [n * step * recipe.batch for n in recipe.passes()]
    before = {} if recipe.init == RANDOM else dict(resolve(recipe.init).weights[run.modality].trained)
    total = [n + int(before.get("since", {}).get(name, 0)) for n, name in zip(own, PASSES, strict=True)]
    trained = {
        "seed": recipe.seed,
        "init": recipe.init,
        "data": run.streams[0].data.task.fingerprint(),
        "examples": run.streams[0].data.size,
        "sees": _seen(run) + [text for text in before.get("sees", []) if text not in _seen(run)],
        "step": step,
        "passes": dict(zip(PASSES, own, strict=True)),
        "validation": {name: round(share, 4) for name, share in val.items()},
        "seconds": round(seconds),
        "processes": processes,
        "torch": version("torch"),
    }
    if recipe.init != RANDOM:
        trained["since"] = dict(zip(PASSES, total, strict=True))
    return trained


PASSES = ("forwards", "backwards")


def _seen(run: Run) -> list[str]:
    """What a fine-tuning sees of classes that its labels do not name."""
    if run.recipe.init == RANDOM:
        return []
    names = ["names of unseen classes"] if run.recipe.prompts == "all" else []
    return names + (["unlabelled examples of unseen classes"] if run.recipe.replay else [])
