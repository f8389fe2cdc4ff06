"""Runs that are killed at random moments and resumed end with the records of an undisturbed run.

RLBENCH_KILLS is the number of killed runs (default 3).
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlbench.core import Record
from rlbench.engine.run.runner import run
from rlbench.store.records import drop_times, read_records

KILLS = int(os.environ.get("RLBENCH_KILLS", "3"))
SUITE = """
suite: killed
version: 1
summary: About a second of work in many small units.
modality: image
task: {name: blobs}
examples: 300
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255, 8/255]}
  - {attack: [fgsm, apgd-ce], norm: linf, eps: 4/255}
  - {attack: pgd, norm: l2, eps: [0.05, 0.1]}
  - worst
"""
RUN = """
import sys
from rlbench.engine.run.runner import execute, plan
made = plan(sys.argv[1], "linear", store=sys.argv[2], workers=int(sys.argv[3]))
print("begun", flush=True)
execute(made)
print("done", flush=True)
"""


def same(records: list[Record]) -> list[Record]:
    return sorted((drop_times(record) for record in records), key=lambda record: str(record.perturbation))


def begin(suite: Path, out: Path, workers: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(suite), str(out), str(workers)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


def workers_of(process: subprocess.Popen) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record], float]:
    folder = tmp_path_factory.mktemp("kill")
    suite = folder / "killed.yaml"
    suite.write_text(SUITE)
    begun = time.perf_counter()
    records = run(str(suite), "linear", out=folder / "whole", workers=1)
    return suite, same(records), time.perf_counter() - begun


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(KILLS))
def test_killed_and_continued(trial: int, undisturbed: tuple, tmp_path: Path) -> None:
    suite, records, seconds = undisturbed
    workers, out = 1 + trial % 2, tmp_path / "out"
    process = begin(suite, out, workers)
    start = 3.0 * (workers > 1)  # the time that workers take to start, about
    time.sleep(random.Random(trial).uniform(0, start + seconds))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for file in out.glob("blocks/*/*"):
        assert file.suffix == ".parquet"  # never half of one: those are elsewhere
    assert same(run(str(suite), "linear", out=out, workers=1)) == records
    assert same(read_records([out])) == records  # none lost, none double
    assert len((out / "records.jsonl").read_text().splitlines()) == len(records)
    assert not list(out.glob(".tmp-*"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_die_with_their_parent(undisturbed: tuple, tmp_path: Path) -> None:
    process = begin(undisturbed[0], tmp_path / "out", 2)
    deadline = time.monotonic() + 60
    while len(workers := workers_of(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(workers) == 2
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, workers))


def test_ctrl_c_ends_the_workers_too(undisturbed: tuple, tmp_path: Path) -> None:
    process = begin(undisturbed[0], tmp_path / "out", 2)
    deadline = time.monotonic() + 60
    while len(workers := workers_of(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert len(workers) == 2 and all(map(gone, workers))
