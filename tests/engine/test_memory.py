"""Where memory runs out, the batch is halved and done again: the same records, and what was chosen is said."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from affine_bench import Affine, adversarial, bench, done
from torch import Tensor

import rlbench
from rlbench.core import Adversarial, Record, Suite
from rlbench.core.batch import BatchSize
from rlbench.core.errors import AttackError, FieldError
from rlbench.core.suite import load_suite
from rlbench.core.threat import search_in
from rlbench.encoders.mini import Mini
from rlbench.engine.plan.fit import largest_batch
from rlbench.engine.run import jobs
from rlbench.store.blocks import Block

COLUMNS = ("pgd", "autoattack", "square")


class Short(Affine):
    """Runs out of memory where `fails` says so, in the forward or in the backward pass."""

    def __init__(self, fails: Callable[[int], bool], *, backward: bool = False) -> None:
        super().__init__(bench().box)
        self.fails, self.backward, self.failures = fails, backward, 0

    def run_out(self, n: int) -> None:
        if self.fails(n):
            self.failures += 1
            raise torch.OutOfMemoryError("planned")

    def embed(self, x: Tensor, modality: str) -> Tensor:
        features = super().embed(x, modality)
        if not self.backward:
            self.run_out(len(x))
        elif features.requires_grad:
            features.register_hook(lambda gradient: self.run_out(len(gradient)))
        return features


def blocks(encoder: Affine, *perturbations: Adversarial, batch: int = 32) -> list[Block]:
    made = bench(batch)
    return done(replace(made, classifier=replace(made.classifier, encoder=encoder)), *perturbations)


def rows(found: list[Block]) -> list[tuple[object, ...]]:
    return [tuple(getattr(b, name).tolist() for name in ("id", "correct", "prediction")) for b in found]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_batches_that_do_not_fit_are_halved_and_done_again(name: str, backward: bool, caplog) -> None:
    fields = {"pgd": {"steps": 4}, "autoattack": {"steps": 3, "queries": 5}, "square": {"queries": 8}}[name]
    attack = adversarial(name, "0.05", **fields)
    whole = blocks(Affine(bench().box), attack)
    short = Short(lambda n: n > 9, backward=backward)
    assert rows(blocks(short, attack)) == rows(whole)
    if backward and name == "square":
        return
    assert short.failures == 2
    assert [r.message for r in caplog.records if "memory" in r.message] == [
        "memory ran out on cpu with batches of 32; going on with 16",
        "memory ran out on cpu with batches of 16; going on with 8",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_running_out_at_random_changes_no_flag_and_counts_no_pass_twice(seed: int) -> None:
    """One job per example, so that even the passes do not depend on the batch size."""
    g, left = random.Random(seed), [3]

    def fails(n: int) -> bool:
        left[0] -= (now := left[0] > 0 and g.random() < 0.5)
        return now

    attack, short = adversarial("pgd", "0.1", steps=10), Short(fails, backward=seed % 2 == 0)
    whole, other = blocks(Affine(bench().box), attack)[0], blocks(short, attack)[0]
    assert short.failures > 0
    for name in ("correct", "prediction", "forwards", "backwards"):
        assert (getattr(whole, name) == getattr(other, name)).all(), name


@pytest.mark.slow
def test_the_search_in_low_precision_runs_out_likewise() -> None:
    attack = search_in(adversarial("apgd-ce", "0.1", steps=3), "bf16")
    whole = blocks(Affine(bench().box), attack)
    assert rows(blocks(Short(lambda n: n > 5, backward=True), attack)) == rows(whole)


def test_one_example_that_does_not_fit_fails_its_cell() -> None:
    failed = blocks(Short(lambda n: True, backward=True), adversarial("pgd", "0.1"))[0]
    assert "one example does not fit in the memory of cpu" in failed.reason
    with pytest.raises(AttackError, match="or precision bf16"):
        BatchSize(1).halve()
    with pytest.raises(FieldError, match="batch_size is 0; it must be at least 1"):
        BatchSize(0)


def facts(records: list[Record]) -> list[object]:
    kept = [replace(r, provenance={k: v for k, v in r.provenance.items() if k != "seconds"}) for r in records]
    return [replace(r, forwards=0, backwards=0) for r in kept]


def few(name: str = "thermal") -> Suite:
    suite = load_suite(name)
    return replace(suite, perturbations=suite.perturbations[:2])


def test_a_run_has_the_same_records_and_says_what_it_came_to(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level(logging.WARNING)
    options = {"examples": 8, "workers": 1, "device": "cpu"}
    whole = rlbench.run(few(), "rlbind", out=tmp_path / "whole", **options)
    own = Mini.embed

    def embed(self: Mini, x: Tensor, modality: str) -> Tensor:
        if len(x) > 5:
            raise torch.OutOfMemoryError("planned")
        return own(self, x, modality)

    monkeypatch.setattr(Mini, "embed", embed)
    assert facts(rlbench.run(few(), "rlbind", out=tmp_path / "short", **options)) == facts(whole)
    assert caplog.messages[-1] == (
        "thermal, rlbind:mini: memory ran out, so batches fell from 64 to 4; accuracies are the same"
    )


def test_a_job_is_done_again_where_nothing_smaller_can_be(tmp_path: Path, monkeypatch) -> None:
    sizes, own = list[int](), jobs.evaluate

    def evaluate(bench, *args):
        sizes.append(bench.batch_size)
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("planned")
        return own(bench, *args)

    monkeypatch.setattr(jobs, "evaluate", evaluate)
    records = rlbench.run(few(), "rlbind", examples=4, out=tmp_path / "store", workers=1, device="cpu")
    assert sizes[:2] == [64, 32]
    assert all(record.error is None for record in records)


def test_the_guess_leaves_room_and_is_a_power_of_two() -> None:
    gigabyte = 2.0**30
    assert largest_batch(140 * gigabyte, gigabyte) == 64
    assert largest_batch(16 * gigabyte, 3 * gigabyte) == 2
    assert largest_batch(80 * gigabyte, 1e3) == 512
    assert largest_batch(gigabyte, 2 * gigabyte) == 1
