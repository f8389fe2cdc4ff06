"""Trackers: what a run logs is read back from them, and a missing package is an error."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from commands import Call, fails
from small_campaign import FILE, SMALL, campaign

from rlbench.core.errors import RLBenchError, UnknownName
from rlbench.training import trackers
from rlbench.training.campaign_file import read_campaign
from rlbench.training.run import train
from rlbench.training.trackers import Tracking, check_trackers

ONE = f"{{modalities: [thermal], set: {{{SMALL}}}, jobs: {{languagebind: {{method: languagebind}}}}}}"
TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 16}


class Recorder:
    """Stands for a tracker of accelerate: it writes what it is told as lines of JSON."""

    name, requires_logging_directory, main_process_only = "wandb", False, True

    def __init__(self, project: str, **arguments: object) -> None:
        self.path, self.lines = Path(str(arguments["dir"])).parent / f"{arguments['name']}.log".replace("/", "-"), []
        self.write(project=project, **arguments)

    def write(self, **values: object) -> None:
        with self.path.open("a") as stream:
            stream.write(json.dumps(values) + "\n")

    def start(self) -> None:
        self.write(started=True)

    def store_init_configuration(self, values: dict) -> None:
        self.write(**values)

    def log(self, values: dict, step: int) -> None:
        self.write(step=step, **values)

    def finish(self) -> None:
        self.write(finished=True)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[dict]]:
    from accelerate import tracking
    from accelerate.utils import LoggerType

    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.WANDB])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_started_logged_and_finished(tmp_path, recorded, metrics, no_curves) -> None:
    names = Tracking(("wandb",), "sweep")
    out = train("languagebind", modalities=["thermal"], out=tmp_path / "a", overrides=TINY, tracking=names)
    made, started, config, *steps, finished = recorded(tmp_path / "a.log")
    assert made == {"project": "rlbench", "name": "a", "group": "sweep", "dir": str(out)} and started["started"]
    assert (config["method"], config["modalities"], config["batch"]) == ("languagebind", "thermal", 32)
    assert all(isinstance(value, str | int | float) for value in config.values()) and finished == {"finished": True}
    lines = metrics(out)
    assert [(s["step"], s["thermal/loss"]) for s in steps] == [(line["step"], line["loss"]) for line in lines]
    assert {name: steps[-1][f"thermal/val/{name}"] for name in lines[-1]["val"]} == lines[-1]["val"]


@pytest.mark.slow
def test_together_is_one_run_and_one_after_the_other_are_two(tmp_path, recorded, no_curves) -> None:
    for together, runs in ((True, 1), (False, 2)):
        out = tmp_path / f"{together}"
        given = {
            "modalities": ["thermal", "audio"],
            "overrides": {**TINY, "examples": 32},
            "tracking": Tracking(("wandb",)),
        }
        train("languagebind", out=out, together=together, **given)
        lines = recorded(tmp_path / f"{together}.log")
        assert sum("project" in line for line in lines) == sum("finished" in line for line in lines) == runs
        assert {key for line in lines for key in line if key.endswith("/loss")} == {"thermal/loss", "audio/loss"}


def test_a_failed_run_is_finished_too(tmp_path, recorded, no_curves) -> None:
    with pytest.raises(RLBenchError, match="the loss is"):
        train(
            "languagebind",
            modalities=["thermal"],
            out=tmp_path / "a",
            overrides={**TINY, "lr": 1e30, "epochs": 9},
            tracking=Tracking(("wandb",)),
        )
    assert recorded(tmp_path / "a.log")[-1] == {"finished": True}


def test_a_tracker_that_can_not_start_is_an_error(tmp_path, recorded, monkeypatch, no_curves) -> None:
    def refuse(self: Recorder) -> None:
        raise ValueError("api_key not configured\nmore")

    monkeypatch.setattr(Recorder, "start", refuse)
    with pytest.raises(RLBenchError, match="--log-with wandb can't start: api_key not configured"):
        train("languagebind", modalities=["thermal"], out=tmp_path / "a", overrides=TINY, tracking=Tracking(("wandb",)))


def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch, call: Call) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "mlflow" else real(name))
    with pytest.raises(RLBenchError, match=r"needs the package mlflow.*'rlbind-bench\[trackers\]'"):
        check_trackers(["mlflow"])
    with pytest.raises(UnknownName, match="did you mean 'wandb'"):
        check_trackers(["wanbd"])
    out = tmp_path / "a"
    fails(call("train", "fare", "--log-with", "mlflow", "--out", out), "rlbind-bench[trackers]", untouched=out)
    (tmp_path / "c.yaml").write_text(FILE)
    fails(call("campaign", "c.yaml", "--log-with", "mlflow", "--out", out), "rlbind-bench[trackers]", untouched=out)


def test_a_campaign_groups_its_runs(tmp_path, recorded, no_curves, monkeypatch) -> None:
    campaign(tmp_path)
    tasks = read_campaign(tmp_path / "c.yaml", tmp_path / "out", log_with=["wandb"])
    assert [task.tracking for task in tasks] == [Tracking(("wandb",), "out", task.name) for task in tasks]
    words = tasks[0].arguments(tmp_path / "out")
    assert words[-6:] == ["--log-with", "wandb", "--group", "out", "--run-name", "1/thermal/languagebind"]


def test_tensorboard_reads_a_run_back(tmp_path, metrics, no_curves) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = Tracking(("tensorboard",))
    out = train("languagebind", modalities=["thermal"], out=tmp_path / "a", overrides=TINY, tracking=names)
    found = EventAccumulator(str(out / "tensorboard" / "rlbench")).Reload()
    events = found.Scalars("thermal/loss")
    assert [(e.step, e.value) for e in events] == [(m["step"], pytest.approx(m["loss"])) for m in metrics(out)]
    assert found.Scalars("thermal/val/clean")[-1].value == pytest.approx(metrics(out)[-1]["val"]["clean"])


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="no trackio")
def test_trackio_reads_the_runs_of_a_campaign_back(tmp_path, metrics) -> None:
    """In a process of its own, since trackio reads the name of its folder when it is imported."""
    (tmp_path / "c.yaml").write_text(ONE)
    words = ("campaign", "c.yaml", "--out", "sweep", "--workers", "1", "--device", "cpu", "--log-with", "trackio")
    folder = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-m", "rlbench", *words], cwd=tmp_path, env=folder, capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(b"1 runs are in sweep"), done  # trackio adds a line at exit
    with closing(sqlite3.connect(tmp_path / "trackio" / "rlbench.db")) as data:
        found = data.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        [(config,)] = data.execute("SELECT config FROM configs").fetchall()
    lines = metrics(tmp_path / "sweep" / "0" / "thermal" / "languagebind")
    assert [(name, step) for name, step, _ in found] == [("0/thermal/languagebind", line["step"]) for line in lines]
    losses = [json.loads(values)["thermal/loss"] for _, _, values in found]
    assert losses == pytest.approx([line["loss"] for line in lines])
    assert json.loads(config)["_Group"] == "sweep" and json.loads(config)["method"] == "languagebind"


def _train_with(tracker: str, folder: Path, **environment: str) -> None:
    """Trains in a process of its own, whose trackers see this environment."""
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    words = ("train", "languagebind", "--modality", "thermal", "--out", "a", "--device", "cpu", "--log-with", tracker)
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "rlbench", *words, *sets], cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0 and b"trained a" in done.stdout, done


def _split_records(data: bytes) -> list[bytes]:
    """The records of a file of wandb: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    records, parts, at = [], list[bytes](), 7
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        parts.append(data[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(b"".join(parts))
            parts = []
    return records


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="no wandb")
def test_wandb_reads_an_offline_run_back(tmp_path, metrics) -> None:
    from wandb.proto import wandb_internal_pb2 as proto

    _train_with("wandb", tmp_path, WANDB_MODE="offline")
    (path,) = (tmp_path / "a" / "wandb").glob("offline-run-*/*.wandb")
    records = [proto.Record.FromString(data) for data in _split_records(path.read_bytes())]
    assert {(one.run.project, one.run.display_name) for one in records if one.HasField("run")} == {("rlbench", "a")}
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        for one in records
        if one.HasField("history")
    ]
    lines = metrics(tmp_path / "a")
    assert [row["thermal/loss"] for row in rows] == pytest.approx([line["loss"] for line in lines])
    assert rows[-1]["thermal/val/clean"] == lines[-1]["val"]["clean"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="no mlflow")
def test_mlflow_reads_a_run_back(tmp_path, metrics) -> None:
    _train_with("mlflow", tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'm.db'}")
    with closing(sqlite3.connect(tmp_path / "m.db")) as data:
        found = data.execute("SELECT step, value FROM metrics WHERE key = 'thermal/loss' ORDER BY step").fetchall()
        parameters = dict(data.execute("SELECT key, value FROM params").fetchall())
        runs = data.execute("SELECT name, status FROM runs").fetchall()
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in metrics(tmp_path / "a")]
    assert (parameters["method"], parameters["batch"]) == ("languagebind", "32") and runs == [("a", "FINISHED")]
