"""The local executor: devices, retry, and what workers send."""

import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pool_jobs
import pytest
import torch

from rlbench.core.errors import FieldError, RLBenchError, UnknownName
from rlbench.core.executor import Lost, Work, make_executor
from rlbench.core.processes import processors
from rlbench.executors import worker
from rlbench.executors.jobs import JobQueue
from rlbench.executors.local import Local
from rlbench.executors.worker import start_ahead, take_worker


def do(perform: Callable[..., Any], shared: object, jobs: list[int], devices: tuple[str, ...] = ("a", "b")) -> list:
    """(job, result) of all jobs, in the order in which they ended."""
    work = Work(perform=perform, shared=shared, devices=devices, tick=lambda passes, news: None)
    with Local().open(work) as pool:
        return list(pool.run(deque(jobs)))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_gets_a_worker() -> None:
    assert Local().devices("cuda", None) == Local().devices("auto", None) == ("cuda:0", "cuda:1")
    assert Local().devices("cuda:1", None) == ("cuda:1",)
    assert Local().devices("cuda", 3) == ("cuda:0", "cuda:1", "cuda:0") and Local().devices("cuda", 1) == ("cuda:0",)
    assert Local().devices("cpu", None) == ("cpu",) * processors()
    with pytest.raises(FieldError, match=r"no device 'cuda:7' here; use cuda:0, cuda:1, or cuda for all"):
        Local().devices("cuda:7", None)


def test_without_a_gpu_cuda_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(FieldError, match=r"sees no GPU here; use cpu or auto"):
            Local().devices(name, None)
    with pytest.raises(FieldError, match="can't be used here"):
        Local().devices("tpu", 1)


def test_jobs_are_spread_over_the_devices(tmp_path: Path) -> None:
    found = do(pool_jobs.place, (str(tmp_path), 2), list(range(8)))
    assert sorted(job for job, _ in found) == list(range(8))
    by_device = {device: {pid for _, (pid, where, _) in found if where == device} for device in ("a", "b")}
    assert all(len(pids) == 1 for pids in by_device.values()) and by_device["a"] != by_device["b"]


def test_a_single_worker_is_this_process_and_knows_its_next_job(tmp_path: Path) -> None:
    found = do(pool_jobs.place, (str(tmp_path), 1), [4, 5, 6], devices=("cpu",))
    assert [ahead for _, (_, _, ahead) in found] == [5, 6, None]


def test_a_dead_workers_job_is_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = dict(do(pool_jobs.die, str(tmp_path), [0, 2, 3]))
    assert {job: found[job] for job in (0, 2)} == {0: 0, 2: 2}
    assert isinstance(found[3], Lost) and "killed by signal 9, at the last of 3 tries" in found[3].reason
    assert len(caplog.messages) == 2 + 3 and all("was killed by signal 9; " in line for line in caplog.messages)
    assert sum("begins again, try 2 of 3" in line for line in caplog.messages) == 2
    assert sum("begins again, try 3 of 3" in line for line in caplog.messages) == 2
    assert sum("given up" in line for line in caplog.messages) == 1


def test_workers_that_never_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "command", lambda code: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(RLBenchError, match=r"no worker can start: worker process \d+ ended with status 3"):
        do(pool_jobs.complain, None, [1, 2, 3])


def test_a_worker_started_ahead_has_imported_and_is_taken_once(tmp_path: Path) -> None:
    with start_ahead("pool_jobs") as ahead:
        found = do(pool_jobs.place, (str(tmp_path), 2), list(range(4)))
        pids = {pid for _, (pid, _, _) in found}
        assert ahead.process.pid in pids and len(pids) == 2
        assert ahead.process.poll() is not None  # it ends with its pool
        fresh = take_worker(0)
        fresh.close()
        assert fresh is not ahead


def test_a_worker_started_ahead_ends_with_the_block_and_is_not_taken_in_another_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_ahead("pool_jobs") as ahead:
        pass
    assert ahead.process.poll() is not None
    with start_ahead("pool_jobs") as ahead:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        fresh = take_worker(1)
        fresh.close()
        assert (fresh is not ahead, fresh.place, ahead.process.poll() is None) == (True, 1, False)
    with start_ahead("pool_jobs") as ahead:
        do(pool_jobs.complain, None, [1], devices=("cpu",))  # this process is the only worker
        assert ahead.process.poll() is not None
    with start_ahead("pool_jobs") as ahead:
        ahead.process.kill()
        ahead.process.wait()
        assert dict(do(pool_jobs.complain, None, [1, 2])) == {1: 1, 2: 2}


def test_a_warning_of_all_workers_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    assert sorted(result for _, result in do(pool_jobs.complain, None, list(range(6)))) == list(range(6))
    assert caplog.messages == ["the disk is full"]


def test_an_error_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(RLBenchError, match="it has other data"):
        do(pool_jobs.refuse, None, [1, 2])
    with pytest.raises(ZeroDivisionError, match="planned") as raised:
        do(pool_jobs.crash, None, [1, 2])
    assert "in crash" in str(raised.value.__notes__)


def test_jobs_may_be_added_while_others_run() -> None:
    jobs, seen = deque([3]), []
    work = Work(perform=pool_jobs.complain, shared=None, devices=("a", "b"), tick=lambda passes, news: None)
    with Local().open(work) as pool:
        for job, _ in pool.run(jobs):
            seen.append(job)
            jobs.extend([job - 1] if job else [])
    assert seen == [3, 2, 1, 0]


def test_the_queue_reserves_a_job_and_an_idle_worker_takes_it() -> None:
    queue = JobQueue(deque("abcd"))
    first, second = queue.take(0), queue.take(1)
    assert first is not None and second is not None
    assert (first[0].job, first[1], second[0].job, second[1]) == ("a", "b", "c", "d") and len(queue) == 2
    assert queue.take(1)[0].job == "d" and queue.take(1)[0].job == "b"
    assert queue.take(0) is None and not queue
    assert queue.lose(0, first[0], "it died") is None and queue.take(1)[0] is first[0]


def test_unknown_executors_and_addresses_are_refused() -> None:
    with pytest.raises(UnknownName, match="no executor named 'rey'; did you mean 'ray'"):
        make_executor("rey")
    with pytest.raises(FieldError, match="address"):
        make_executor("local", "auto")


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RLBenchError, match=r"needs Ray .*; pip install 'rlbind-bench\[ray\]'"):
        make_executor("ray", "auto").devices("auto", None)
