"""`train`: a method's recipe becomes a run folder, whose path is a model name."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from rlbench.checkpoints import DEFAULT_BACKBONE
from rlbench.core import Modality, Suite
from rlbench.encoders.mini import BOXES, packed
from rlbench.errors import ModalityError, RLBenchError
from rlbench.training.loop import Run, Step, fit, prepared
from rlbench.training.recipe import described, load_recipe

SUMMARY = "Trained by rlbench train {method}."


def train(
    method: str,
    *,
    modalities: Sequence[Modality] | None = None,
    stage: int | None = None,
    suite: Suite | None = None,
    out: Path | str,
    overrides: Mapping[str, object] | None = None,
    report: Callable[[Step], None] = lambda step: None,
    announce: Callable[[str], None] = lambda text: None,
) -> Path:
    """Trains a method for some modalities, one after the other.

    Args:
        method: a folder of recipes in baselines/, such as "rlbind".
        modalities: None: the suite's, or all that the backbone has.
        stage: of a method of several stages; None: the last.
        suite: train on its task's train split instead of the modality's procedural world.
        out: the run folder to make; it must not exist.
        overrides: fields of the recipe.
        report: called after every step, and before the first one with the examples that are there.
        announce: called with a line before each modality: what it starts from, and for how long it trains.

    Returns:
        `out`, with card.yaml, recipe.yaml, metrics.jsonl and one safetensors file a modality. It appears as a whole, at
        the end.

    Raises:
        UnknownName, FieldError, CheckpointError, ModalityError, DataError; RLBenchError: `out` exists or can't be
        written, or the loss is not finite.
    """
    chosen = tuple(modalities or ([suite.modality] if suite else BOXES))
    if suite and chosen != (suite.modality,):
        raise ModalityError(f"suite {suite.name!r} is {suite.modality}; it can't train {', '.join(chosen)}")
    recipes = {m: load_recipe(method, stage, modality=m, overrides=overrides) for m in chosen}
    with _folder(Path(out)) as folder:
        (folder / "recipe.yaml").write_text(yaml.safe_dump({m: asdict(r) for m, r in recipes.items()}, sort_keys=False))
        entries = {}
        for modality, recipe in recipes.items():
            announce(f"{method}, {modality}: {described(recipe)}")
            began = time.monotonic()
            run = prepared(recipe, modality, suite, report)
            val = fit(run, _logged(folder / "metrics.jsonl", report))
            entries[modality] = _saved(run, val, folder, time.monotonic() - began)
        (folder / "card.yaml").write_text(yaml.safe_dump(_card(method, suite, entries), sort_keys=False))
    return Path(out)


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that takes the name `out` once it is complete, and leaves nothing behind otherwise."""
    if out.exists():
        raise RLBenchError(f"{out} exists; name another run folder with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise RLBenchError(f"{out} can't be written: {error.strerror}; name another run folder with --out") from error
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _logged(path: Path, report: Callable[[Step], None]) -> Callable[[Step], None]:
    def both(step: Step) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(step)) + "\n")
        report(step)

    return both


def _saved(run: Run, val: Mapping[str, float], folder: Path, seconds: float) -> dict[str, Any]:
    """Writes the tower; returns its entry in the card."""
    tower = run.encoder.towers[run.modality]
    data = packed(tower)  # type: ignore[arg-type]
    path = folder / f"{DEFAULT_BACKBONE}-{run.modality}.safetensors"
    path.write_bytes(data)
    trained = {
        "seed": run.recipe.seed,
        "init": run.recipe.init,
        "data": run.data.task.fingerprint(),
        "examples": len(run.data.y),
        "validation": {name: round(share, 4) for name, share in val.items()},
        "seconds": round(seconds),
        "torch": version("torch"),
    }
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "trained": trained}


def _card(method: str, suite: Suite | None, entries: Mapping[Modality, Any]) -> dict[str, Any]:
    data = f"the train split of suite {suite.name}" if suite else "procedural worlds"
    backbone = {"family": "mini", "data": data, "modalities": dict(entries)}
    return {"baseline": method, "summary": SUMMARY.format(method=method), "backbones": {DEFAULT_BACKBONE: backbone}}
