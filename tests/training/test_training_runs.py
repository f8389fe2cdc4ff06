"""Run folders: models, reproducible, resumable, and the errors of what can't be trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from rlbench.core import Suite, registry
from rlbench.core.errors import CheckpointError, DataError, FieldError, ModalityError, RLBenchError, UnknownName
from rlbench.encoders.models import load_encoder, resolve
from rlbench.tasks.scenes import Scenes
from rlbench.training import run as training
from rlbench.training.loop import Step
from rlbench.training.rehearsal import rehearse
from rlbench.training.run import train

TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 16}
THERMAL = {"modalities": ["thermal"]}


def _suite(task, modality: str = "thermal") -> Suite:
    return Suite(
        name="small",
        version=1,
        summary="",
        modality=modality,
        task_name="small",
        task=task,
        perturbations=(),
        examples=1,
        seed=0,
        path="",
    )


def test_a_run_is_reproducible_and_its_folder_is_a_model(tmp_path, metrics, request) -> None:
    steps: list[Step] = []
    lines: list[str] = []
    first = train(
        "languagebind", out=tmp_path / "a", overrides=TINY, report=steps.append, announce=lines.append, **THERMAL
    )
    assert lines[0] == "languagebind, thermal: from random weights, 1 epoch of up to 64 examples"
    assert lines[1].startswith("languagebind, thermal: ") and lines[1].endswith(" GB of memory") and len(lines) == 2
    request.getfixturevalue("no_curves")  # of the runs that follow
    second = train("languagebind", out=tmp_path / "b", overrides=TINY, **THERMAL)
    other = train("languagebind", out=tmp_path / "c", overrides={**TINY, "seed": 1}, **THERMAL)
    models = [resolve(str(path)) for path in (first, second, other)]
    assert models[0].sha256 == models[1].sha256 != models[2].sha256
    assert [(s.what, s.step, s.steps) for s in steps] == [("example", 64, 64), ("step", 1, 2), ("step", 2, 2)]
    assert set(steps[-1].val) == {"clean", "robust", "unseen"} and not steps[-2].val
    assert [step["step"] for step in metrics(first)] == [1, 2]
    encoder = load_encoder(str(first), "thermal")
    assert torch.allclose(encoder.embed(torch.rand(2, 1, 32, 32), "thermal").norm(dim=1), torch.ones(2), atol=1e-5)
    names = {"best", "card.yaml", "curves.png", "metrics.jsonl", "mini-thermal.safetensors", "recipe.yaml"}
    assert {path.name for path in first.iterdir()} == names
    with Image.open(first / "curves.png") as curves:
        assert curves.size[0] > 600 and len(curves.convert("L").getcolors()) > 10
    tuned = train("fare", out=tmp_path / "d", overrides={**TINY, "init": str(first), "original": str(first)}, **THERMAL)
    card = yaml.safe_load((tuned / "card.yaml").read_text())["backbones"]["mini"]["modalities"]["thermal"]["trained"]
    assert card["init"] == str(first) and card["step"] == 2 and card["passes"] == {"forwards": 192, "backwards": 128}
    assert card["data"] == registry.make("task", "thermal-world", {}).fingerprint()
    with pytest.raises(RLBenchError, match="exists"):
        train("fare", out=first, overrides=TINY, **THERMAL)


def test_the_best_weights_are_saved_beside_the_last(tmp_path, monkeypatch, metrics, no_curves) -> None:
    """By robust validation accuracy, the first one of equals; both are models."""
    shares = iter([0.1, 0.3, 0.3, 0.2])
    monkeypatch.setattr(training, "validate", lambda data, device: {"clean": 0.5, "robust": next(shares)})
    out = train("fare", out=tmp_path / "a", overrides={**TINY, "epochs": 2, "validate": 1}, **THERMAL)
    last, best = (resolve(str(path)).weights["thermal"] for path in (out, out / "best"))
    assert (last.trained["step"], last.trained["validation"]["robust"]) == (4, 0.2)
    assert (best.trained["step"], best.trained["validation"]["robust"]) == (2, 0.3)
    assert last.sha256 != best.sha256 and load_encoder(str(out / "best"), "thermal").boxes
    assert [step["val"].get("robust") for step in metrics(out)] == [0.1, 0.3, 0.3, 0.2]


def test_the_average_is_what_is_saved(tmp_path, metrics, no_curves) -> None:
    plain = train("fare", out=tmp_path / "a", overrides=TINY, **THERMAL)
    averaged = train("fare", out=tmp_path / "b", overrides={**TINY, "ema": 0.5}, **THERMAL)
    files = [load_file(path / "mini-thermal.safetensors") for path in (plain, averaged)]
    assert any(not torch.equal(files[0][name], files[1][name]) for name in files[0])
    assert [step["loss"] for step in metrics(plain)] == [step["loss"] for step in metrics(averaged)]


def test_modalities_trained_together_alternate_step_by_step(tmp_path, metrics, no_curves) -> None:
    given = {**TINY, "init": "fare:mini", "objective.means": 1.0}
    together = {"modalities": ["thermal", "audio"], "overrides": given, "together": True}
    out = train("rlbind", out=tmp_path / "a", **together)
    steps = [(step["modality"], step["step"]) for step in metrics(out)]
    assert steps == [("thermal", 1), ("audio", 1), ("thermal", 2), ("audio", 2)]
    assert set(resolve(str(out)).modalities) == {"thermal", "audio"}
    again = train("rlbind", out=tmp_path / "b", **together)
    assert resolve(str(out)).sha256 == resolve(str(again)).sha256


@pytest.mark.slow
def test_an_interrupted_run_of_paired_sensors_resumes_to_the_same_weights(tmp_path, no_curves) -> None:
    """The features of the other sensors and the class means are part of the state; both reach the loss."""
    start = {"init": "fare:mini-scenes", "original": "languagebind:mini-scenes"}
    given = {**TINY, **start, "epochs": 2, "batch": 16, "examples": 32}
    paired = {"modalities": ["image", "thermal"], "backbone": "mini-scenes", "together": True}
    terms = {"objective.fused": 1.0, "objective.means": 1.0}
    whole = train("rlbind", out=tmp_path / "a", overrides={**given, **terms}, **paired)
    steps: list[Step] = []

    def stop(step: Step) -> None:
        steps.append(step)
        if (step.what, step.modality, step.step) == ("step", "image", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("rlbind", out=tmp_path / "b", overrides={**given, **terms}, report=stop, **paired)
    train("rlbind", out=tmp_path / "b", overrides={**given, **terms}, **paired)
    sums = [resolve(str(tmp_path / name)).sha256 for name in "ab"]
    assert sums[0] == sums[1]
    for term in terms:
        without = train("rlbind", out=tmp_path / term, overrides={**given, **terms, term: 0.0}, **paired)
        assert resolve(str(without)).sha256 != resolve(str(whole)).sha256


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, metrics, no_curves) -> None:
    """Stopped after a step that was logged but not saved: the step runs again, and its line appears once."""
    given = {**TINY, "epochs": 3, "validate": 3, "ema": 0.9, "replay": 0.25, "original": "languagebind:mini"}
    whole = train("fare", out=tmp_path / "a", overrides=given, **THERMAL)

    def stop(step: Step) -> None:
        if step.what == "step" and step.step in (2, 5) and step.step not in stops:
            stops.append(step.step)
            raise KeyboardInterrupt

    stops: list[int] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train("fare", out=tmp_path / "b", overrides=given, report=stop, **THERMAL)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as stream:
        stream.write('{"modality": "ther')  # as a kill in the middle of writing leaves it
    lines: list[str] = []
    out = train("fare", out=tmp_path / "b", overrides=given, report=stop, announce=lines.append, **THERMAL)
    assert stops == [2, 5] and "not finished: resuming" in lines[0]
    for name in ("", "best"):
        files = [(path / name / "mini-thermal.safetensors").read_bytes() for path in (whole, out)]
        assert files[0] == files[1]
    assert metrics(whole) == metrics(out) and not list(out.glob("state*"))


def test_an_unfinished_run_of_another_recipe_is_refused(tmp_path) -> None:
    def stop(step: Step) -> None:
        if step.what == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("fare", out=tmp_path / "a", overrides=TINY, report=stop, **THERMAL)
    with pytest.raises(RLBenchError, match="another recipe"):
        train("fare", out=tmp_path / "a", overrides={**TINY, "lr": 0.5}, **THERMAL)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("")
    with pytest.raises(RLBenchError, match="b exists"):
        train("fare", out=tmp_path / "b", overrides=TINY, **THERMAL)
    (tmp_path / "file").write_text("")
    with pytest.raises(RLBenchError, match="can't be written"):
        train("fare", out=tmp_path / "file" / "c", overrides=TINY, **THERMAL)


@pytest.mark.parametrize(
    ("method", "modality", "overrides", "error", "text"),
    [
        ("languagebind", "thermal", {"lr": 1e30, "epochs": 8}, RLBenchError, "the loss is nan at step"),
        ("rlbind", "thermal", {"init": "nothing"}, UnknownName, "no model named 'nothing'"),
        ("rlbind", "thermal", {"init": "runs/stage1"}, CheckpointError, "runs/stage1 is not a trained model"),
        ("fare", "thermal", {"original": "runs/original"}, CheckpointError, "runs/original is not a trained model"),
        ("languagebind", "image", {"init": "linear"}, CheckpointError, "no towers that can be trained"),
        ("languagebind", "depth", {}, ModalityError, "no depth"),
        ("fare", "audio", {"crop": 0.5}, FieldError, "audio is not cropped"),
        ("rlbind", "thermal", {"objective.fused": 1}, FieldError, "fused needs paired examples"),
        ("fare", "thermal", {"world": "thermal-world"}, FieldError, "no field 'modality'"),
        ("fare", "thermal", {"world": "nowhere"}, UnknownName, "no task named 'nowhere'"),
        ("fare", "thermal", {"checkpointing": True}, FieldError, "mini does not support checkpointing"),
        ("fare", "thermal", {"accumulate": 2, "replay": 0.1}, FieldError, "can't be shared equally"),
    ],
)
def test_what_cant_be_trained(tmp_path, method, modality, overrides, error, text) -> None:
    with pytest.raises(error, match=text):
        train(method, modalities=[modality], out=tmp_path / "a", overrides={**TINY, **overrides})
    assert not (tmp_path / "a" / "card.yaml").exists()


class _Small(type(registry.make("task", "thermal-world", {}))):
    """The thermal world with fixed splits."""

    sizes: ClassVar = {"train": 40, "val": 16, "test": 0}

    def size(self, split):
        return self.sizes[split]


def test_a_suites_own_data(tmp_path, no_curves) -> None:
    """A train split of 40 and no unseen classes: an epoch of 64 repeats examples."""
    steps: list[Step] = []
    out = train(
        "languagebind", suite=_suite(_Small()), out=tmp_path / "a", overrides={**TINY, "epochs": 2}, report=steps.append
    )
    assert steps[-1].steps == 4 and set(steps[-1].val) == {"clean", "robust"}
    assert resolve(str(out)).data == "the train split of suite small"
    with pytest.raises(ModalityError, match="can't train audio"):
        train("languagebind", suite=_suite(_Small()), modalities=["audio"], out=tmp_path / "b", overrides=TINY)
    with pytest.raises(FieldError, match="replay needs a procedural world"):
        train("fare", suite=_suite(_Small()), out=tmp_path / "b", overrides={**TINY, "replay": 0.5})


@dataclass(frozen=True)
class _Sensors:
    """A task of several sensors."""

    tasks: Mapping[str, Scenes]
    pairing: str = "paired"


def test_a_suite_of_several_sensors_trains_each_on_its_own(tmp_path, no_curves) -> None:
    task = _Sensors({sensor: Scenes(modality=sensor, subset="unseen") for sensor in ("image", "thermal")})
    given = {**TINY, "examples": 32, "original": "languagebind:mini", "init": "fare:mini", "objective.fused": 1.0}
    suite, steps = _suite(task, "image+thermal"), []
    together = {"suite": suite, "overrides": given, "together": True}
    out = train("rlbind", out=tmp_path / "a", report=steps.append, **together)
    data = {m: weights.trained["data"] for m, weights in resolve(str(out)).weights.items()}
    assert data == {sensor: own.fingerprint() for sensor, own in task.tasks.items()}
    assert set(steps[-1].val) == {"clean", "robust"}
    with pytest.raises(ModalityError, match=r"image\+thermal; it can't train audio"):
        train("rlbind", out=tmp_path / "b", modalities=["audio"], **together)
    independent = _suite(replace(task, pairing="class-paired"), "image+thermal")
    with pytest.raises(FieldError, match="fused needs paired examples"):
        train("rlbind", out=tmp_path / "b", **{**together, "suite": independent})


def test_no_data_is_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_Small, "sizes", {"train": 0, "val": 0, "test": 9})
    with pytest.raises(DataError, match="nothing to train on"):
        train("languagebind", suite=_suite(_Small()), out=tmp_path / "a", overrides=TINY)


def test_precision_can_change_between_runs(tmp_path, no_curves) -> None:
    """bf16 in the tower alone: losses are near those of float32, and not the same."""
    losses = []
    for precision in ("fp32", "bf16", "fp32"):
        steps: list[Step] = []
        given = {**TINY, "examples": 32, "precision": precision}
        train("fare", out=tmp_path / str(len(losses)), overrides=given, report=steps.append, **THERMAL)
        losses.append(steps[1].loss)
    assert losses[0] == losses[2] != losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_rehearsal_says_steps_passes_and_time() -> None:
    (line,) = rehearse("rlbind", overrides={**TINY, "init": "fare:mini", "attack_steps": 3, "epochs": 5}, **THERMAL)
    assert line.startswith("rlbind, thermal: from fare:mini (the bundled one), 5 epochs of up to 64 examples")
    assert "10 steps of 32, 1,920 forward and 1,600 backward passes, about " in line
    with pytest.raises(UnknownName):
        rehearse("rlbind", overrides={"init": "nothing"}, **THERMAL)
