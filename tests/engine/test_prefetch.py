"""The next job's inputs are loaded while the encoder works, and the numbers are the same."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_suite import same, suite_file

from rlbench.core import Box, Corrupted, Examples
from rlbench.core.suite import load_suite
from rlbench.engine.block import inputs
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.run import jobs
from rlbench.engine.run.runner import run

SECONDS = 0.3  # of loading a block, and of an encoder's work on it


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [True, False])
def test_an_encoder_waits_for_the_first_block_only(
    ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(suite_file(tmp_path, 2048))
    suite = replace(suite, perturbations=suite.perturbations[:1])
    whole = run(suite, "linear", out=tmp_path / "whole", workers=1)
    waited, loads = list[float](), list[int]()

    class Slow(type(suite.task)):  # type: ignore[misc]
        def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
            if stop - start == 256:
                loads.append(start)
                time.sleep(SECONDS)
            return super().load(box, start, stop, split)

    def load(self: Inputs, start: int, stop: int, load=Inputs.load) -> Examples:
        begun = time.perf_counter()
        found = load(self, start, stop)
        if threading.current_thread() is threading.main_thread():
            waited.append(time.perf_counter() - begun)
        return found

    def evaluate(*arguments: object, evaluate=jobs.evaluate) -> list:
        found = evaluate(*arguments)
        time.sleep(SECONDS)
        return found

    inputs._HELD.clear()
    monkeypatch.setattr(Inputs, "load", load)
    monkeypatch.setattr(jobs, "evaluate", evaluate)
    if not ahead:
        monkeypatch.setattr(jobs, "prefetch", lambda spans, prefetch=jobs.prefetch: prefetch([]))
    records = run(replace(suite, task=Slow()), "linear", out=tmp_path / "slow", workers=1)
    idle = sum(waited) / (sum(waited) + 8 * SECONDS)
    assert idle < 0.3 if ahead else idle > 0.4
    assert sorted(loads) == list(range(0, 2048, 256)), loads
    assert same(records) == same(whole)


def test_corrupted_inputs_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite(suite_file(tmp_path))
    source = Inputs(suite.task, suite.task.fingerprint(), Box(shape=(1, 8, 8)), 0, tmp_path / "inputs")
    one, made = Corrupted("brightness", 1), []
    x = torch.full((8, 1, 8, 8), 0.5)
    monkeypatch.setattr(Inputs, "_corrupt", lambda *arguments: made.append(time.sleep(0.2)) or x)
    thread = threading.Thread(target=source.prepare, args=(one, 0, 8))
    thread.start()
    assert torch.allclose(source.load_corrupted(one, 0, 8), x)
    thread.join()
    assert len(made) == 1
