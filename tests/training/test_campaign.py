"""Campaigns: many runs from one file, and the script that copies checkpoints into the baselines' folders."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from small_campaign import FILE, SMALL, campaign

from rlbench.core.errors import FieldError, RLBenchError
from rlbench.core.files import LOCK, hold_lock
from rlbench.encoders.cards import read_card
from rlbench.encoders.models import resolve
from rlbench.training.campaign import run_campaign
from rlbench.training.campaign_table import tabulate

BUNDLE = Path(__file__).parents[2] / "benchmarks" / "bundle.py"


def _bundle(*arguments: object) -> Result:
    """Calls the script in this process."""
    return CliRunner().invoke(runpy.run_path(str(BUNDLE))["main"], [str(argument) for argument in arguments])


def test_a_file_becomes_runs_that_wait_for_others(tmp_path: Path) -> None:
    first, fare, again = campaign(tmp_path)
    assert [task.name for task in (first, fare, again)] == [
        "1/thermal/languagebind",
        "1/thermal/fare",
        "2/thermal/fare",
    ]
    assert first.after == frozenset() and fare.after == again.after == {"1/thermal/languagebind"}
    words = again.arguments(tmp_path / "out")
    start = str((tmp_path / "out" / "1/thermal/languagebind").absolute())
    assert words[:4] == ["train", "fare", "--modality", "thermal"] and f"init={start}" in words and "seed=1" in words


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "must be a mapping"),
        (FILE.replace("jobs:", "job:"), "did you mean 'jobs'"),
        (FILE.replace("method: fare", "methods: fare"), "did you mean 'method'"),
        (FILE.replace("epochs: 1", "epoch: 1"), "did you mean 'epochs'"),
        (FILE.replace('"@1/languagebind", original', '"@1/languagebnd", original'), "which is not a job of this file"),
        (FILE.replace("jobs:", "jobs: {}\nold:").partition("old:")[0], "there are no jobs"),
        (
            FILE + "  late: {method: tecoa, rounds: ['3']}\n",
            "'3' is not a round or a modality of this file: 1, 2, thermal",
        ),
        (FILE + "  loud: {method: tecoa, modalities: [audio]}\n", "'audio' is not a round or a modality"),
        (FILE.replace("[thermal]", "[thermal, thermal]"), "the modality thermal of these jobs is given twice"),
    ],
)
def test_mistakes_in_a_file(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=error):
        campaign(tmp_path, text)


@pytest.mark.slow
def test_runs_are_trained_once_and_then_tabulated_and_bundled(tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    tasks = campaign(tmp_path)
    run_campaign(tasks, out, workers=2, report=lambda name, done, of: seen.append((name, done, of)))
    assert seen[-1][1:] == (3, 3) and {name for name, _, _ in seen} == {task.name for task in tasks}
    stamp = (out / "2/thermal/fare/card.yaml").stat().st_mtime_ns
    run_campaign(tasks, out, report=lambda *_: pytest.fail("nothing is left"))
    assert (out / "2/thermal/fare/card.yaml").stat().st_mtime_ns == stamp

    with hold_lock(out / LOCK), pytest.raises(RLBenchError, match="in use by another campaign"):
        run_campaign(tasks, out, report=lambda *_: None)
    with pytest.raises(RLBenchError, match="2/thermal/fare exists: a finished run of another recipe"):
        run_campaign(campaign(tmp_path, FILE.replace("seed: 1", "seed: 2")), out, report=lambda *_: None)

    table = tabulate(tasks, out).splitlines()
    assert len(table) == 2 + 3 and "seed=1" in table[-1] and "clean" in table[0]

    for name in ("fare", "other"):
        (tmp_path / "baselines" / name).mkdir(parents=True)
        card = {"baseline": name, "summary": "x", "backbones": {"mini": {"family": "mini", "modalities": {}}}}
        (tmp_path / "baselines" / name / "card.yaml").write_text(yaml.safe_dump(card))
    assert _bundle(out / "1", tmp_path / "baselines").output == "thermal fare\n"
    (model,) = read_card(tmp_path / "baselines" / "fare" / "card.yaml")
    run = resolve(str(out / "1/thermal/fare"))
    assert model.weights["thermal"].trained["init"] == "languagebind:mini"
    assert model.size < 0.6 * run.size
    assert (tmp_path / "baselines/fare/mini-thermal.safetensors").is_file()
    refused = _bundle(out / "2" / "thermal", tmp_path / "baselines")
    assert refused.exit_code == 1 and "has no finished runs of a baseline" in refused.output


TOGETHER = """
modalities: [image, thermal]
backbone: mini-scenes
together: true
set: {examples: 16, batch: 16, validation: 4, epochs: 1}
jobs:
  languagebind: {method: languagebind}
  rlbind:
    method: rlbind
    set: {init: "@languagebind", original: "@languagebind", objective.fused: 1, objective.means: 1}
"""


def test_sensors_trained_together_are_one_run_and_one_model(tmp_path: Path, no_curves: None) -> None:
    tasks, out = campaign(tmp_path, TOGETHER), tmp_path / "out"
    assert [task.name for task in tasks] == ["0/together/languagebind", "0/together/rlbind"]
    words = tasks[1].arguments(out)
    assert words[:7] == ["train", "rlbind:mini-scenes", "--modality", "image", "--modality", "thermal", "--together"]
    run_campaign(tasks, out, workers=1, device="cpu", report=lambda *_: None)
    model = resolve(str(out / "0/together/rlbind"))
    assert model.backbone == "mini-scenes" and set(model.modalities) == {"image", "thermal"}
    table = tabulate(tasks, out).splitlines()
    assert len(table) == 2 + 4 and "0/together/rlbind thermal" in table[-1] and "objective.fused=1" in table[-1]

    (tmp_path / "baselines" / "rlbind").mkdir(parents=True)
    card = {"baseline": "rlbind", "summary": "x", "backbones": {}}
    (tmp_path / "baselines/rlbind/card.yaml").write_text(yaml.safe_dump(card))
    assert _bundle(out / "0", tmp_path / "baselines").output == "together rlbind\n"
    (bundled,) = read_card(tmp_path / "baselines/rlbind/card.yaml")
    assert bundled.weights["image"].trained["init"] == "languagebind:mini-scenes"
    assert (tmp_path / "baselines/rlbind/mini-scenes-thermal.safetensors").is_file()


def test_the_bundling_script_shows_its_usage() -> None:
    command = [sys.executable, str(BUNDLE), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0 and "Usage: bundle.py [OPTIONS] RUNS BASELINES" in shown.stdout


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_are_trained(tmp_path: Path) -> None:
    text = FILE.replace("{method: languagebind, rounds", "{method: languagebind, set: {lr: 1.0e+30, epochs: 8}, rounds")
    text += f"  alone: {{method: languagebind, set: {{{SMALL}}}, rounds: ['2']}}\n"
    tasks, out = campaign(tmp_path, text), tmp_path / "out"
    with pytest.raises(RLBenchError, match="1/thermal/languagebind: the loss is"):
        run_campaign(tasks, out, workers=2, report=lambda *_: None)
    assert (out / "2/thermal/alone/card.yaml").is_file() and not (out / "1/thermal/fare").exists()


def test_a_run_that_cant_start_is_named_before_any_is_trained(tmp_path: Path) -> None:
    for given, text in (("suite: nowhere.yaml", "nowhere.yaml: can't read"), ("set: {init: nobody}", "no model named")):
        tasks = campaign(tmp_path, FILE + f"  last: {{method: tecoa, {given}}}\n")
        with pytest.raises(RLBenchError, match=f"1/thermal/last: .*{text}"):
            run_campaign(tasks, tmp_path / "out", report=lambda *_: pytest.fail("a run was trained"))
        assert not (tmp_path / "out").exists()


def test_a_table_says_which_radius_and_suite_where_they_differ(tmp_path: Path) -> None:
    """The backbone, whose eps is 0, is validated at 4/255."""
    text = FILE + "  weak: {method: tecoa, rounds: ['1'], set: {eps: 1/255}}\n"
    tasks, out = campaign(tmp_path, text), tmp_path / "out"
    for task in tasks:
        entry = {"trained": {"validation": {"clean": 0.5, "robust": 0.25}}}
        backbones = {"mini": {"family": "mini", "modalities": {"thermal": entry}}}
        (out / task.name).mkdir(parents=True)
        card = yaml.safe_dump({"baseline": "x", "summary": "x", "backbones": backbones})
        (out / task.name / "card.yaml").write_text(card)
    head, _, first, fare, weak, _ = tabulate(tasks, out).splitlines()
    assert head.rstrip(" |").endswith("robust at") and "suite" not in head
    assert [row.rstrip(" |").rpartition(" ")[2] for row in (first, fare, weak)] == ["4/255", "4/255", "1/255"]
    assert "robust at" not in tabulate(campaign(tmp_path), out)
    tasks = campaign(tmp_path, text.replace("set: {eps: 1/255}", "suite: own.yaml"))
    assert tabulate(tasks, out).splitlines()[4].rstrip(" |").endswith("own.yaml")
