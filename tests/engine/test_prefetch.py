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


@pytest.mark.parametrize("ahead", [True, False])
def test_the_next_block_is_loaded_while_the_encoder_works(
    ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(suite_file(tmp_path, 1024))
    suite = replace(suite, perturbations=suite.perturbations[:1])
    whole = run(suite, "linear", out=tmp_path / "whole", workers=1)
    loaded = {start: threading.Event() for start in range(0, 1024, 256)}
    here = dict[int, bool]()  # by first example of a block: whether the thread of the run loaded it

    class Watched(type(suite.task)):  # type: ignore[misc]
        def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
            found = super().load(box, start, stop, split)
            if stop - start == 256:
                assert start not in here, "loaded twice"
                here[start] = threading.current_thread() is threading.main_thread()
                loaded[start].set()
            return found

    def evaluate(bench: object, groups: object, start: int, stop: int, *rest: object, evaluate=jobs.evaluate) -> list:
        found = evaluate(bench, groups, start, stop, *rest)
        if stop in loaded:
            assert loaded[stop].wait(60 * ahead) == ahead
        return found

    inputs._HELD.clear()
    monkeypatch.setattr(jobs, "evaluate", evaluate)
    if not ahead:
        monkeypatch.setattr(jobs, "prefetch", lambda spans, prefetch=jobs.prefetch: prefetch([]))
    records = run(replace(suite, task=Watched()), "linear", out=tmp_path / "watched", workers=1)
    assert list(here) == list(loaded) and set(list(here.values())[1:]) == {not ahead}
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


def test_cached_inputs_are_made_again_with_another_version_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs._sources()
    monkeypatch.setattr(inputs, "version", lambda library: "0")
    assert inputs._sources.__wrapped__() != before == inputs._sources()
