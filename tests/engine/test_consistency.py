"""A run classifies its first block again: outputs that are random or depend on the batch make every cell unsound."""

from __future__ import annotations

import re

import pytest
import torch
from commands import Call
from tiny_suite import counts, suite_file

from rlbench.core import Box
from rlbench.engine.attack.meter import Meter
from rlbench.engine.run.runner import run
from rlbench.engine.soundness.consistency import COMPANY, OTHER, REPEATS, count_inconsistent, relative_change
from rlbench.engine.soundness.rules import findings

BOX = Box(shape=(4,))
FAILS = {
    "Company": "H4",
    "Quantised": "H4",
    "Sorted": "H4",
    "Small": "H4",
    "Noisy": "S10",
    "OwnGenerator": "S10",
    "Drifting": "S10",
    "TwoFaced": "S10",
}


@pytest.mark.parametrize(("name", "batch_size"), [(n, b) for n in FAILS for b in (64, 1) if (n, b) != ("Small", 1)])
def test_every_cell_of_an_inconsistent_encoder_is_marked(name: str, batch_size: int, tmp_path) -> None:
    records = run(
        suite_file(tmp_path, 24), f"inconsistent_encoders:{name}", out=tmp_path / "o", workers=1, batch_size=batch_size
    )
    for record in records:
        assert record.provenance["soundness"] != "sound", record.perturbation
        assert FAILS[name] in str(record.provenance["soundness_failed"])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 64])
def test_a_consistent_encoder_is_sound_in_any_batch_size(batch_size: int, tmp_path) -> None:
    suite = suite_file(tmp_path, 20)
    records = run(suite, "faulty_encoders:Good", out=tmp_path / "o", workers=1, batch_size=batch_size)
    assert {record.provenance["soundness"] for record in records} == {"sound"}
    assert "soundness_failed" not in records[0].provenance


def test_passes_of_the_consistency_check_are_not_counted(tmp_path) -> None:
    record = run(suite_file(tmp_path, 20), "faulty_encoders:Good", out=tmp_path / "o", workers=1)[0]
    assert record.forwards == record.n


def _sums(classify, x: torch.Tensor, batch_size: int = 64) -> dict[str, int]:
    def ask(size: int) -> Meter:
        return Meter(classify, len(x), batch_size=size)

    with torch.no_grad():
        logits = ask(batch_size)(x)
    return count_inconsistent(ask, x, logits, BOX, batch_size, graph=True, apart=True)


def test_the_batches_of_the_consistency_check() -> None:
    sizes: list[int] = []

    def classify(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x @ torch.ones(4, 3).cumsum(1)

    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert _sums(classify, x) == {"repeated": 20, "random": 0, "company": 0, "graph": 0}
    assert sizes == [20, 4, 4, 4, OTHER, OTHER, 6, 1]
    assert _sums(classify, x[:0]) == {}


@pytest.mark.parametrize(("share", "status"), [(0.5 * REPEATS, "pass"), (2 * COMPANY, "fail")])
def test_float_noise_passes_and_a_dependence_on_the_batch_does_not(share: float, status: str) -> None:
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    largest = float((x @ weights).abs().max())
    sums = _sums(lambda x: x @ weights + share * largest * len(x) / 20, x)
    assert next(one.status for one in findings(sums) if one.id == "H4") == status


def test_one_example_in_a_hundred_is_a_warning() -> None:
    for company, status in ((0, "pass"), (2, "warn"), (3, "fail")):
        found = findings({"repeated": 256, "company": company})
        assert next(one.status for one in found if one.id == "H4") == status


def test_relative_change_of_rows() -> None:
    one = torch.tensor([[2.0, -4.0], [1.0, float("nan")]])
    other = torch.tensor([[2.0, -3.0], [1.0, 5.0]])
    assert relative_change(one, other).tolist() == [0.25, 0.0]


def test_a_run_prints_unsound_models_below_its_table(call: Call, tmp_path) -> None:
    arguments = ("run", "--suite", suite_file(tmp_path, 24), "--workers", 1, "--quiet")
    noisy = call(*arguments, "--model", "inconsistent_encoders:Noisy", "--model", "faulty_encoders:Good")
    assert noisy.exit_code == 0
    (line,) = [line for line in noisy.stdout.splitlines() if line.startswith("inconsistent_encoders:Noisy: ")]
    assert "S10: " in line and "24" not in line.partition("(")[0]
    assert "faulty_encoders:Good: sound" in noisy.stdout.splitlines()
    assert len(re.findall(r"\* \d", noisy.stdout)) == 6  # of 12 cells
    assert call(*arguments, "--model", "inconsistent_encoders:Noisy", "--strict").exit_code == 1
    sound = call(*arguments, "--model", "faulty_encoders:Good", "--strict")
    assert sound.exit_code == 0 and "*" not in sound.stdout


def test_with_json_unsound_models_are_printed_to_stderr(call: Call, tmp_path) -> None:
    arguments = ("run", "--suite", suite_file(tmp_path, 24), "--workers", 1, "--quiet", "--json")
    assert (
        "inconsistent_encoders:Company: unreliable: H4: "
        in call(*arguments, "--model", "inconsistent_encoders:Company").stderr
    )
    assert call(*arguments, "--model", "faulty_encoders:Good").stderr == ""


def test_an_encoder_that_writes_into_its_inputs_changes_no_others(tmp_path) -> None:
    suite = suite_file(tmp_path, 24)
    models = ["inconsistent_encoders:Writing", "inconsistent_encoders:Plain", "faulty_encoders:Good"]
    together = run(suite, models, out=tmp_path / "together", workers=1)
    alone = {m: counts(run(suite, m, out=tmp_path / "alone", workers=1)) for m in reversed(models)}
    for model in models:
        assert counts([r for r in together if r.model == model]) == alone[model]
    assert (
        alone["inconsistent_encoders:Writing"] == alone["inconsistent_encoders:Plain"] != alone["faulty_encoders:Good"]
    )
    failed = {str(r.provenance.get("soundness_failed", "")) for r in together}
    assert all(text == "" or (text.startswith("H11: ") and "; " not in text) for text in failed)  # two are at chance
