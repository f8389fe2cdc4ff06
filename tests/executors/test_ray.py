"""The Ray executor on a cluster of two nodes on this machine; left out where Ray is not installed."""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pool_jobs
import pytest
from click.testing import Result
from commands import fails
from kill_suite import Killer, actors, disturbing, write_suite
from small_campaign import campaign
from tiny_suite import same

from rlbench.core.errors import FieldError, RLBenchError
from rlbench.core.executor import Lost, Work
from rlbench.engine.run.runner import execute, plan, run
from rlbench.executors import ray as executors
from rlbench.executors.ray import Ray
from rlbench.training.campaign import is_finished, run_campaign

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node and another node, with one CPU core each; workers find the tests' modules."""
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    ray.init(address=made.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def do(perform: Callable[..., Any], shared: object, jobs: list[int], workers: int = 2) -> list:
    ticks: list[int] = []
    work = Work(
        perform=perform, shared=shared, devices=("cpu",) * workers, tick=lambda passes, news: ticks.append(passes)
    )
    with Ray("auto").open(work) as pool:
        found = list(pool.run(deque(jobs)))
    found.append(("ticks", sum(ticks)))
    return found


def others(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages, without the one that appears where the machine is slow."""
    return [line for line in caplog.messages if "no room for a worker yet" not in line]


@pytest.mark.usefixtures("cluster")
def test_jobs_are_spread_over_the_nodes(tmp_path: Path) -> None:
    assert Ray("auto").devices("auto", None) == Ray("auto").devices("cpu", 2) == ("cpu", "cpu")
    found = do(pool_jobs.place, (str(tmp_path), 2), list(range(8)))
    assert found.pop() == ("ticks", 8)
    assert sorted(job for job, _ in found) == list(range(8)) and len({pid for _, (pid, _, _) in found}) == 2
    with pytest.raises(FieldError, match=r"has no GPU, and 2 CPU cores; use --device cpu"):
        Ray("auto").devices("cuda", None)
    with pytest.raises(FieldError, match=r"places workers itself"):
        Ray("auto").devices("cuda:1", None)


@pytest.mark.usefixtures("cluster")
def test_a_dead_workers_job_is_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = dict(do(pool_jobs.die, str(tmp_path), [0, 1, 3]))
    assert found[0] == 0 and found[1] == 1 and isinstance(found[3], Lost)
    messages = others(caplog)
    assert len(messages) == 1 + 3 and all("the Ray worker on " in line for line in messages)


@pytest.mark.usefixtures("cluster")
def test_errors_and_messages_are_the_drivers(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    do(pool_jobs.complain, None, [1, 2, 3])
    assert others(caplog) == ["the disk is full"]
    with pytest.raises(RLBenchError, match=rf"node {socket.gethostname()} \(.*\): it has other data"):
        do(pool_jobs.refuse, None, [1], workers=1)
    with pytest.raises(ZeroDivisionError, match="planned"):
        do(pool_jobs.crash, None, [1], workers=1)
    monkeypatch.setattr(executors, "code", lambda: "another")
    with pytest.raises(RLBenchError, match=rf"node {socket.gethostname()} \(.*\): it has another version of rlbench"):
        do(pool_jobs.complain, None, [1], workers=1)


@pytest.mark.usefixtures("cluster")
def test_a_campaign_is_trained_in_the_order_of_its_runs(tmp_path: Path) -> None:
    tasks, seen = campaign(tmp_path), []
    where = {"executor": "ray", "address": "auto", "workers": 2, "device": "cpu"}
    run_campaign(tasks, tmp_path / "out", report=lambda name, done, of: seen.append((name, done, of)), **where)
    assert seen[0] == ("1/thermal/languagebind", 1, 3) and len(seen) == 3
    assert all(is_finished(task, tmp_path / "out") for task in tasks)


def test_workers_are_killed_and_a_node_is_removed(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test on the cluster: afterwards it has one node."""
    suite, out, killer = write_suite(tmp_path), tmp_path / "out", Killer(actors)
    whole = run(suite, "linear", out=tmp_path / "whole", workers=1)

    def remove() -> bool:
        cluster.remove_node(cluster.second)
        return True

    made = plan(suite, "linear", store=out, executor="ray", address="auto", workers=2)
    with disturbing(out, [*7 * [killer], remove, *3 * [killer]]):
        records = execute(made)
    assert same(records) == same(whole)
    retries = [line for line in caplog.messages if "the Ray worker on " in line]
    assert len(killer.killed) == 10 and len(cluster.list_all_nodes()) == 1
    assert retries and all("; its job begins again, try " in line for line in retries)


def test_nothing_listens_at_the_address(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    asked = ("run", "--suite", "smoke", "--model", "linear", "--executor", "ray", "--address")
    fails(call(*asked, f"127.0.0.1:{port}"), f"no Ray cluster at 127.0.0.1:{port}")
    assert time.monotonic() - begun < 60  # Ray itself would try for minutes
    fails(call(*asked, "here"), "it must be auto or HOST:PORT")
