"""A real third-party package: installed by pip, found by its entry points, run through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    copy = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(HERE / "plugin"), str(copy)], check=True)
    subprocess.run([*install, "--target", str(site), str(copy)], check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def _run(environment, cwd, *arguments: str) -> str:
    command = [sys.executable, "-m", "rlbench", *arguments]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("attacks", "corner"),
        ("corruptions", "dim"),
        ("fusions", "power"),
        ("suites", "corner-smoke"),
        ("models", "quarters"),
    ],
)
def test_plugins_are_listed(environment, tmp_path, kind, name) -> None:
    assert name in _run(environment, tmp_path, "list", kind)


@pytest.mark.parametrize("model", ["linear", "quarters"])
def test_a_plugin_suite_runs(environment, tmp_path, model) -> None:
    out = _run(environment, tmp_path, "run", "--suite", "corner-smoke", "--model", model, "--json")
    records = {record["perturbation"]: record for record in json.loads(out)}
    assert all(record["error"] is None and record["n"] == 40 for record in records.values())
    columns = ("clean", "corner linf 2/255", "corner linf 8/255", "worst linf 8/255")
    survivors = [records[column]["n_correct"] for column in columns]
    assert survivors == sorted(survivors, reverse=True) and survivors[0] > survivors[-1]
