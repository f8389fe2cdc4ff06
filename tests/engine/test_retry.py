"""Runs whose workers are killed end with the records of an undisturbed run."""

from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from kill_suite import Killer, children, disturbing, write_suite
from tiny_suite import same

from rlbench.core.executor import Lost
from rlbench.engine.run.runner import execute, plan, run
from rlbench.executors.local import Local


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_are_killed_at_ten_random_moments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    suite, out = write_suite(tmp_path), tmp_path / "out"
    whole = run(suite, "linear", out=tmp_path / "whole", workers=1)
    before = set(children())
    killer = Killer(lambda: list(set(children()) - before))
    with disturbing(out, 10 * [killer]):
        records = execute(plan(suite, "linear", store=out, workers=2))
    assert same(records) == same(whole)
    retries = [line for line in caplog.messages if "was killed by signal 9; " in line]
    assert len(killer.killed) == 10 and set(children()) <= before
    assert 0 < len(retries) <= 10 and not any("given up" in line for line in retries)


class LosingPool:
    """Runs jobs here, but loses those that `lost` says."""

    def __init__(self, work, lost) -> None:
        self.work, self.lost, self.active = work, lost, []

    def run(self, jobs):
        while jobs:
            job = jobs.popleft()
            if self.lost(job):
                yield job, Lost("worker process 7 was killed by signal 9, at the last of 3 tries")
            else:
                with Local().open(self.work) as pool:
                    yield from pool.run(deque([job]))


@pytest.mark.parametrize("what", ["clean", "attacks"])
def test_a_lost_block_fails_its_cells_and_the_rest_goes_on(what: str, tmp_path: Path) -> None:
    suite, out = write_suite(tmp_path), tmp_path / "out"
    made = plan(suite, "linear", store=out, examples=600, workers=1)

    def loses(job) -> bool:
        return job[0][0].start == 256 and (job[1] is None) == (what == "clean")

    class Losing(Local):
        def open(self, work):
            return nullcontext(LosingPool(work, loses))

    records = {str(r.perturbation): r for r in execute(replace(made, executor=Losing()))}
    failed = {name for name, record in records.items() if record.error is not None}
    assert failed == set(records) - ({"clean"} if what == "attacks" else set())
    assert all("killed by signal 9, at the last of 3 tries" in str(records[name].error) for name in failed)
    again = run(suite, "linear", out=out, examples=600, workers=1)  # only what was lost is computed
    assert same(again) == same(run(suite, "linear", out=tmp_path / "whole", examples=600, workers=1))
