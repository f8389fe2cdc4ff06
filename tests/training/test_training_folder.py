"""The folder of a training run: which run owns it, who writes it, and that a kill at any write loses nothing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rlbench.core import registry
from rlbench.core.errors import FieldError, RLBenchError
from rlbench.core.files import LOCK, TEMPORARY, hold_lock
from rlbench.core.suite import load_suite
from rlbench.training import folder as module
from rlbench.training.loop import Step
from rlbench.training.rehearsal import rehearse
from rlbench.training.run import load_recipes, open_run_folder, train

TINY = {"examples": 32, "epochs": 2, "batch": 32, "validate": 1, "attack_steps": 1, "validation": 16}
THERMAL = {"modalities": ["thermal"], "overrides": TINY}


class Killed(BaseException):
    """Stands for a kill."""


def run_folder(out: Path, **changes: object) -> module.RunFolder:
    recipes = load_recipes("languagebind", ["thermal"], None, "mini", None, {**TINY, **changes})
    return open_run_folder("languagebind", recipes, None, out)


def test_a_folder_is_new_unfinished_or_of_another_run(tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert run_folder(out).check() == "new"
    with run_folder(out).claim():
        (out / f"{TEMPORARY}x-1-2").write_text("half")
        assert run_folder(out).check() == "new"
        run_folder(out).create()
    assert run_folder(out).check() == "unfinished"
    with pytest.raises(RLBenchError, match="unfinished run of another recipe"):
        run_folder(out, lr=0.5).check()
    (out / "card.yaml").write_text("")
    assert run_folder(out).check() == "finished"
    with pytest.raises(RLBenchError, match="exists: a finished run of another recipe"):
        run_folder(out, lr=0.5).check()


@pytest.mark.parametrize(
    ("name", "data"),
    [("notes.txt", b"mine"), ("recipe.yaml", b"\xff\xfe"), ("recipe.yaml", b"a: ["), ("recipe.yaml", b"[1]"),
     ("recipe.yaml", b""), ("card.yaml", b"baseline: x"), ("recipe.yaml", b"lr: 1"), ("best/a", b"")],
)  # fmt: skip
def test_a_folder_of_something_else_is_left_alone(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RLBenchError, match=r"exists|another recipe") as refused:
        train("languagebind", out=tmp_path, **THERMAL)
    assert "\n" not in str(refused.value)
    assert (tmp_path / name).read_bytes() == data and not (tmp_path / LOCK).exists()


def test_one_process_at_a_time_writes_and_no_empty_folder_is_left(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with pytest.raises(KeyError), run_folder(out).claim():
        raise KeyError
    assert not out.exists()
    out.mkdir()
    with hold_lock(out / LOCK), pytest.raises(RLBenchError, match="being trained by another process"):
        train("languagebind", out=out, **THERMAL)
    assert [path.name for path in out.iterdir()] == [LOCK]


def _kill_at(k: int, monkeypatch) -> list[str]:
    """Raises Killed before the k-th change of the disk; returns a list that collects the changes before it."""
    done: list[str] = []

    def count(name: str, change):
        def counted(*arguments: object, **options: object) -> object:
            if len(done) == k:
                raise Killed
            done.append(name)
            return change(*arguments, **options)

        return counted

    for change in ("replace", "unlink"):
        monkeypatch.setattr(os, change, count(change, getattr(os, change)))
    for name in ("create", "log", "drop_steps", "claim"):
        monkeypatch.setattr(module.RunFolder, name, count(name, getattr(module.RunFolder, name)))
    return done


def test_a_run_killed_at_any_write_resumes_to_the_same_weights(tmp_path: Path, monkeypatch, metrics, no_curves) -> None:
    """The same command again and again, killed a few changes later each time, until it ends."""
    whole = train("languagebind", out=tmp_path / "whole", **THERMAL)
    out, k = tmp_path / "killed", 0
    while True:
        with monkeypatch.context() as patch:
            done = _kill_at(k, patch)
            try:
                train("languagebind", out=out, **THERMAL)
            except Killed:
                k += 3 if k < 6 else 6
                continue
        break
    assert k > 10 and len(done) <= k
    for name in ("mini-thermal.safetensors", "best/mini-thermal.safetensors"):
        assert (whole / name).read_bytes() == (out / name).read_bytes()
    assert metrics(whole) == metrics(out)
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY)}
    lines: list[str] = []
    assert train("languagebind", out=out, announce=lines.append, **THERMAL) == out
    assert lines == [f"{out} is finished: nothing is left to train"]


def test_a_resume_checks_the_data_and_the_starts(tmp_path: Path, no_curves) -> None:
    start = train("languagebind", modalities=["thermal"], out=tmp_path / "start", overrides={**TINY, "epochs": 1})
    given = {"modalities": ["thermal"], "overrides": {**TINY, "init": str(start), "original": str(start)}}

    def stop(step: Step) -> None:
        if step.what == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("fare", out=tmp_path / "a", report=stop, **given)
    other = yaml.safe_load((start / "card.yaml").read_text())
    other["backbones"]["mini"]["modalities"]["thermal"]["sha256"] = "0" * 64
    (start / "card.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(RLBenchError, match=f"thermal of {start} changed since it began"):
        train("fare", out=tmp_path / "a", **given)


def test_a_rehearsal_tells_the_steps_and_time_of_a_run(tmp_path: Path, no_curves) -> None:
    """Also with a suite's own small split, which an epoch repeats, and with what training refuses."""

    class Small(type(registry.make("task", "thermal-world", {}))):
        def size(self, split: str) -> int:
            return 20

    suite = replace(load_suite("thermal"), task=Small())
    given = {"suite": suite, "overrides": {**TINY, "examples": 60, "batch": 16, "validate": 0}}
    steps: list[int] = []
    (line,) = rehearse("languagebind", out=tmp_path / "a", **given)
    assert not (tmp_path / "a").exists()
    out = train("languagebind", out=tmp_path / "a", report=lambda step: steps.append(step.steps), **given)
    assert steps[-1] == 6 and "; 6 steps of 16, " in line
    assert rehearse("languagebind", out=out, **given) == [f"{out} is finished: nothing is left to train"]
    for wrong in ({"replay": 0.5}, {"accumulate": 2, "replay": 0.1}, {"replay": 0.001}):
        with pytest.raises(FieldError, match="recipe: "):
            rehearse("fare", **({"suite": suite} if len(wrong) == 1 else THERMAL) | {"overrides": {**TINY, **wrong}})
    with pytest.raises(RLBenchError, match="exists"):
        rehearse("languagebind", out=tmp_path, **THERMAL)
