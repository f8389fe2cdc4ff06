"""A user's own encoders run together as they run alone: in any order, in several processes, killed and resumed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import Call, fails
from tiny_suite import same, suite_file

from rlbench.core import Record
from rlbench.core.errors import RLBenchError, StoreError
from rlbench.engine.run.runner import Progress, execute, plan, run
from rlbench.store.store import Store

FIVE = """
import torch
from rlbench.encoders.linear import Linear
class Own(Linear):
    sha256 = {}
    def __init__(self, seed):
        super().__init__()
        noise = torch.randn(self._weights.shape, generator=torch.Generator().manual_seed(seed))
        self.parts = [self._weights + 0.006 * seed * noise / noise.abs().sum(1, keepdim=True)]
        self._weights = None
    def embed(self, x, modality):
        head = (x.flatten(1) - 0.5) @ self.parts[0].to(x).T
        return torch.cat([head, (1 - head.square().sum(1, keepdim=True)).clamp_min(0).sqrt()], dim=1)
def make_1(): return Own(10)
def make_2(): return Own(20)
def make_3(): return Own(30)
def make_4(): return Own(50)
def make_5(): return Own(80)
def again_5(): return Own(80)
def unseeded():
    one = Own(1); one.parts = [one.parts[0] + 1e-4 * torch.rand(4, 64)]; return one
"""
NAMES = [f"five:make_{k}" for k in range(1, 6)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "five.py").write_text(FIVE)
    monkeypatch.chdir(tmp_path)


def _by_model(records: list[Record], names: Sequence[str] = NAMES) -> dict[str, list[Record]]:
    return {name: same([record for record in records if record.model == name]) for name in names}


def _alone(suite: str, names: Sequence[str] = NAMES) -> dict[str, list[Record]]:
    records = [record for name in names for record in run(suite, name, out=f"alone-{name[-1]}", workers=1)]
    return _by_model(records, names)


@pytest.mark.slow
def test_joint_runs_are_single_runs_in_any_order_and_number_of_processes(tmp_path: Path) -> None:
    suite = suite_file(tmp_path)
    alone = _alone(suite)
    assert len({str([r.flags for r in records]) for records in alone.values()}) == 5  # they are five encoders
    for workers, order in ((1, NAMES[::-1]), (2, random.Random(0).sample(NAMES, 5))):
        for _ in range(2):  # once computed, once from the store
            assert _by_model(run(suite, order, out=f"joint-{workers}", workers=workers)) == alone


def test_a_killed_joint_run_resumes_to_the_same_records(tmp_path: Path) -> None:
    suite = suite_file(tmp_path)
    alone, killed = _alone(suite), 0

    def kill(progress: Progress) -> None:
        if progress.done > 60 * (killed + 1):
            raise KeyboardInterrupt

    while killed < 3:
        with pytest.raises(KeyboardInterrupt):
            execute(plan(suite, NAMES, store="killed", workers=1), kill)
        killed += 1
    assert _by_model(run(suite, NAMES[::-1], out="killed", workers=1)) == alone


@pytest.mark.slow
def test_a_joint_run_in_two_processes_resumes_after_kill_9(tmp_path: Path) -> None:
    suite, names = suite_file(tmp_path, 600), NAMES[:3]
    alone = _alone(suite, names)
    code = (
        "import sys; from rlbench.engine.run.runner import run; run(sys.argv[1], sys.argv[2:], out='killed', workers=2)"
    )
    for blocks in (3, 9, 20):
        process = subprocess.Popen([sys.executable, "-c", code, suite, *names])
        while len(list(Path("killed/blocks").rglob("*.parquet"))) < blocks:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert _by_model(run(suite, names[::-1], out="killed", workers=2), names) == alone


def test_one_encoder_under_two_names_is_refused(tmp_path: Path, call: Call) -> None:
    (tmp_path / "five.py").write_text(FIVE)
    suite = suite_file(tmp_path)
    both = ("--model", "five:make_5", "--model", "five:again_5")
    fails(call("run", "--suite", suite, *both), "five:make_5 and five:again_5 are the same encoder", "run one of them")
    run(suite, "five:make_5", out="store", workers=1, examples=12)
    with pytest.raises(StoreError, match="five:again_5 is five:make_5, of which store has results"):
        run(suite, "five:again_5", out="store", workers=1)
    run(suite, "five:again_5", out="store", workers=1, examples=12, fresh=True)
    assert {record.model for record in Store("store").records()[0]} == {"five:again_5"}


def test_the_same_name_with_other_weights_reuses_no_block(tmp_path: Path) -> None:
    suite = suite_file(tmp_path)
    before = run(suite, "five:make_1", out="store", workers=1)
    import five

    five.make_1.__code__ = five.make_5.__code__  # as a notebook that defines it anew
    after = run(suite, "five:make_1", out="store", workers=1)
    assert [r.flags for r in after] != [r.flags for r in before] and not {r.key for r in after} & {
        r.key for r in before
    }


def test_an_encoder_that_differs_between_processes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RLBenchError, match=r"five:unseeded' is different each time .*encoder\.parts\[0\]"):
        run(suite_file(tmp_path), "five:unseeded", out="store", workers=2)
    assert run(suite_file(tmp_path), "five:unseeded", out="store", workers=1)


def test_an_encoder_that_declares_that_it_has_no_gradient_fails_only_the_attacks_that_need_one(tmp_path: Path) -> None:
    (tmp_path / "cut.py").write_text(
        "import torch, five\n"
        "class Cut(five.Own):\n"
        "    traits = frozenset({'non_differentiable'})\n"
        "    embed = torch.no_grad()(five.Own.embed)\n"
        "def make(): return Cut(10)\n"
    )
    records = run(suite_file(tmp_path), "cut:make", out="cut", workers=1, examples=8)
    assert {str(record.perturbation) for record in records if record.error is None} >= {"clean"}
    assert all(record.n_correct is None for record in records if getattr(record.perturbation, "attack", "") == "pgd")
