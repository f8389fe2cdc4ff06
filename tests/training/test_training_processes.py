"""Training in processes: one that is killed and resumed, and two that compute what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rlbench.core.errors import FieldError, RLBenchError
from rlbench.training import run
from rlbench.training.recipe import load_recipe
from rlbench.training.run import train

TINY = {"examples": 64, "batch": 32, "attack_steps": 1, "validation": 16}


def _train(method: str, out: Path, **overrides: object) -> None:
    """Trains in this process."""
    train(method, modalities=["thermal"], device="cpu", out=out, overrides={**TINY, **overrides})


def _arguments(method: str, out: Path, **overrides: object) -> list[str]:
    """The arguments of the equivalent command."""
    settings = [text for key, value in {**TINY, **overrides}.items() for text in ("--set", f"{key}={value}")]
    return ["train", method, "--modality", "thermal", "--device", "cpu", "--quiet", "--out", str(out), *settings]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, metrics, no_curves) -> None:
    """SIGKILL after steps that no saved state has; meanwhile, a second training in the folder is refused."""
    given = {"init": "fare:mini", "epochs": 12, "validate": 7, "ema": 0.9}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _train("rlbind", whole, **given)
    log, limit = killed / "metrics.jsonl", time.monotonic() + 120
    command = [sys.executable, "-m", "rlbench", *_arguments("rlbind", killed, **given)]
    with subprocess.Popen(command, env=_environment()) as process:
        while not (log.exists() and log.read_text().count("\n") > 9):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(RLBenchError, match="is being trained by another process; wait for it"):
            _train("rlbind", killed, **given)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (killed / "card.yaml").exists()
    assert list(killed.glob("state-*"))
    _train("rlbind", killed, **given)
    for name in ("mini-thermal.safetensors", "best/mini-thermal.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert metrics(whole) == metrics(killed) and len(metrics(whole)) == 24


SCRIPT = """
import json, sys
from rlbench.cli import main
for arguments in json.loads(sys.argv[1]):
    main(arguments, standalone_mode=False)
"""


def test_processes_find_each_other_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun: accelerate joins processes on CPUs only if it is told that there is nothing else."""
    given: dict[str, object] = {}
    monkeypatch.setattr(run, "Accelerator", lambda **options: given.update(options))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    run.make_accelerator("auto", load_recipe("tecoa", modality="image"), print)
    assert given["cpu"] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(FieldError, match="sees no GPU here"):
        run.make_accelerator("cuda", load_recipe("tecoa", modality="image"), print)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path, metrics, no_curves) -> None:
    """With the same global batch; InfoNCE compares the rows of both, which also share replay and accumulation."""
    methods = {
        "languagebind": {"epochs": 2},
        "rlbind": {"init": "fare:mini", "epochs": 2, "ema": 0.9, "objective.means": 1, "replay": 0.25, "accumulate": 2},
    }
    for method, given in methods.items():
        _train(method, tmp_path / "one" / method, **given)
    two = [_arguments(method, tmp_path / "two" / method, **given) for method, given in methods.items()]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", port, str(script), json.dumps(two)]
    done = subprocess.run(launch, env=_environment(), check=True, capture_output=True, text=True)
    assert done.stdout.count("trained ") == len(methods) and "Warning" not in done.stderr
    for method in methods:
        losses = [[step["loss"] for step in metrics(tmp_path / n / method)] for n in ("one", "two")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) >= 4
        assert "processes: 2" in (tmp_path / "two" / method / "card.yaml").read_text()
