"""Training in processes: killed and run again, and two that compute what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = {"examples": 64, "batch": 32, "attack_steps": 2, "attack_step": 0.5, "validation": 16}


def _arguments(method: str, out: Path, **overrides: object) -> list[str]:
    settings = [text for key, value in {**TINY, **overrides}.items() for text in ("--set", f"{key}={value}")]
    return ["train", method, "--modality", "thermal", "--device", "cpu", "--quiet", "--out", str(out), *settings]


def _metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path) -> None:
    """SIGKILL in the middle, with steps behind the last saved state; the same command goes on."""
    given = {"init": "fare:mini", "epochs": 30, "validate": 7, "ema": 0.9}
    command = [sys.executable, "-m", "rlbench"]
    subprocess.run([*command, *_arguments("rlbind", tmp_path / "whole", **given)], env=_environment(), check=True)
    again = [*command, *_arguments("rlbind", tmp_path / "killed", **given)]
    metrics, limit = tmp_path / "killed" / "metrics.jsonl", time.monotonic() + 120
    with subprocess.Popen(again, env=_environment()) as process:
        while not (metrics.exists() and metrics.read_text().count("\n") > 9):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        second = subprocess.run(again, env=_environment(), capture_output=True, text=True)
        assert second.returncode == 2 and "is being trained by another process; wait for it" in second.stderr
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "card.yaml").exists()
    assert list((tmp_path / "killed").glob("state-*"))
    subprocess.run(again, env=_environment(), check=True)
    for name in (".", "best"):
        files = [tmp_path / run / name / "mini-thermal.safetensors" for run in ("whole", "killed")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "killed") and len(_metrics(tmp_path / "whole")) == 60


SCRIPT = """
import json, sys
from rlbench.cli import main
for arguments in json.loads(sys.argv[1]):
    main(arguments, standalone_mode=False)
"""


def test_two_processes_compute_what_one_does(tmp_path) -> None:
    """At the same global batch; InfoNCE compares the rows of both, and replay and accumulation share theirs."""
    methods = {
        "languagebind": {"epochs": 3},
        "rlbind": {"init": "fare:mini", "epochs": 2, "ema": 0.9, "objective.means": 1, "replay": 0.25, "accumulate": 2},
    }
    one, two = ([_arguments(m, tmp_path / n / m, **s) for m, s in methods.items()] for n in ("one", "two"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    subprocess.run([sys.executable, script, json.dumps(one)], env=_environment(), check=True)
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", port, str(script), json.dumps(two)]
    made = subprocess.run(launch, env=_environment(), check=True, capture_output=True, text=True)
    assert made.stdout.count("trained ") == len(methods) and "Warning" not in made.stderr
    for method in methods:
        losses = [[step["loss"] for step in _metrics(tmp_path / n / method)] for n in ("one", "two")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) >= 4
        assert "processes: 2" in (tmp_path / "two" / method / "card.yaml").read_text()
