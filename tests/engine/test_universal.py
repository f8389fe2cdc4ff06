"""Universal perturbations in a run: made on other examples, once, the same for all, however the run is divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlbench.attacks.uap import UAP
from rlbench.core import Adversarial, Box, Clean, Examples, Record, Split, Suite, Surrogate, Threat, Worst
from rlbench.core.errors import KnowledgeError
from rlbench.core.suite import load_suite
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block import universal
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.evaluate import perturb
from rlbench.engine.block.universal import choose_split, explain_missing
from rlbench.engine.cells.modes import vary
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.store.flags import flags_of
from rlbench.store.records import drop_times
from rlbench.tasks.blobs import Blobs
from rlbench.tasks.subset import select_examples

FIELDS = (("examples", 40), ("steps", 10))


def uap(norm: Any = "linf", eps: str = "12/255", **more: Any) -> Adversarial:
    return Adversarial("uap", Threat(norm, Fraction(eps)), FIELDS, **more)


def suite(*perturbations: Any, n: int = 60, of: str = "smoke") -> Suite:
    return replace(load_suite(of), perturbations=(Clean(), *perturbations), examples=n)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(universal, "_HELD", {})


@pytest.mark.parametrize(("norm", "eps"), [("linf", "12/255"), ("l2", "0.3")])
def test_it_is_made_on_validation_examples_and_the_same_for_all(norm: Any, eps: str) -> None:
    bench, attack = prepare(suite(), "linear"), uap(norm, eps)
    found = perturb(bench, attack, 0, 60)
    other = bench.task.load(bench.box, 0, 40, "val")
    delta = UAP(**dict(FIELDS)).make(Meter(bench.classifier, 40), other.x, other.y, bench.ball(attack.threat))  # type: ignore[arg-type]
    attacked = torch.from_numpy(found.clean.correct)
    moved = (found.x_adv - found.x)[attacked]
    torch.testing.assert_close(moved, delta.expand_as(moved), rtol=0, atol=1e-6)
    assert delta.abs().amax() > 0 and not (found.x_adv - found.x)[~attacked].any()
    assert 0 < found.perturbed.correct.sum() < found.clean.correct.sum()


def _records(out: Path, *perturbations: Any, n: int = 300, **options: Any) -> dict[str, Record]:
    return {str(r.perturbation): r for r in run(suite(*perturbations, n=n), "linear", out=out, **options)}


@pytest.mark.parametrize(
    "options",
    [pytest.param({"workers": 2}, marks=pytest.mark.slow), {"workers": 1, "batch_size": 7}],
    ids=str,
)
def test_neither_workers_nor_batches_change_it(options: dict[str, int], tmp_path: Path) -> None:
    pair = uap(), uap(eps="20/255")
    one = _records(tmp_path / "a", *pair, workers=1)
    universal._HELD.clear()
    other = _records(tmp_path / "b", *pair, **options)
    for name, record in one.items():
        np.testing.assert_array_equal(flags_of(record), flags_of(other[name]))
        assert drop_times(record) == drop_times(other[name]) or "batch_size" in options
    assert len(list((tmp_path / "b" / "universal").glob("*.npz"))) == 2
    assert 0 < (one[str(pair[1])].n_correct or 0) < (one[str(pair[0])].n_correct or 0) < (one["clean"].n_correct or 0)


def test_its_passes_count_once_and_the_record_says_on_what(tmp_path: Path) -> None:
    record = _records(tmp_path, uap(), workers=1)[str(uap())]
    assert record.provenance["made_on"] == "val 0-39"
    assert record.provenance["other_forwards"] == 12 * 40 and record.provenance["other_backwards"] == 10 * 40
    assert record.backwards == 10 * 40


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()
    make = UAP.make

    def count(self: UAP, *arguments: Any) -> Any:
        calls.append(1)
        return make(self, *arguments)

    monkeypatch.setattr(UAP, "make", count)
    _records(tmp_path, uap(), workers=1)
    assert len(calls) == 1
    for file in (tmp_path / "blocks").rglob("256-300.parquet"):
        file.unlink()
    universal._HELD.clear()
    _records(tmp_path, uap(), workers=1)
    assert len(calls) == 1
    file = next((tmp_path / "universal").glob("*.npz"))
    file.write_bytes(file.read_bytes()[:50])  # damaged: made again
    universal._HELD.clear()
    _records(tmp_path, uap(), workers=1, fresh=True)
    assert len(calls) == 2


def test_the_key_holds_its_fields_and_seed(tmp_path: Path) -> None:
    def key(attack: Adversarial, seed: int = 0) -> str:
        pair = plan(vary(suite(attack), seed=seed), "linear", store=tmp_path).pairs[0]
        return pair.keys[attack]

    more = replace(uap(), fields=(("examples", 41), ("steps", 10)))
    longer = replace(uap(), fields=(("examples", 40), ("steps", 11)))
    assert len({key(uap()), key(more), key(longer), key(uap(), seed=1)}) == 4


def test_a_subset_has_the_same_perturbation() -> None:
    bench, rows = prepare(suite(), "linear"), (3, 50, 7)
    whole = perturb(bench, uap(), 0, 60).x_adv[list(rows)]
    part = perturb(bench.on(select_examples(bench.task, rows)), uap(), 0, 3).x_adv
    torch.testing.assert_close(part, whole, rtol=0, atol=0)


def test_made_on_a_surrogate_that_is_the_model_it_is_the_same() -> None:
    bench = prepare(suite(), "linear")
    own, other = (perturb(bench, uap(surrogate=s), 0, 60) for s in (None, Surrogate("linear")))
    assert torch.equal(own.x_adv, other.x_adv)


@dataclass(frozen=True, kw_only=True)
class Few(Blobs):
    """Blobs with few examples of other splits, or with splits that are all the same."""

    val: int = 0
    train: int = 0
    same: bool = False

    def size(self, split: Split) -> int | None:
        return {"val": self.val, "train": self.train, "test": 60}[split]

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        return super().load(box, start, stop, "test" if self.same else split)


def test_a_task_without_other_examples_is_refused(tmp_path: Path) -> None:
    only = replace(suite(uap()), task=Few())
    said = "uap needs 40 examples for validation or training, and the task has 0; it has test examples only"
    with pytest.raises(KnowledgeError, match=f"nothing to run but clean inputs: {said}$"):
        plan(only, "linear", store=tmp_path)
    few = replace(suite(uap()), task=Few(val=30, train=20))
    assert explain_missing(prepare(few, "linear"), uap()).endswith("the task has 30; set examples: 30 or fewer")
    assert choose_split(Few(val=30, train=40), 40) == "train" and choose_split(Few(val=40, train=90), 40) == "val"


def test_splits_that_are_the_same_fail_the_cell(tmp_path: Path) -> None:
    record = run(replace(suite(uap()), task=Few(val=60, same=True)), "linear", out=tmp_path, workers=1)[1]
    assert record.n_correct is None and "the val examples of blobs are also test examples" in str(record.error)


def test_a_black_box_has_none_of_its_own(tmp_path: Path) -> None:
    fgsm = Adversarial("fgsm", Threat("linf", Fraction(1, 255)), surrogate=Surrogate("linear"))
    found = plan(suite(uap(), fgsm), "black_boxes:make_label_box", store=tmp_path)
    skipped = {str(cell.perturbation): cell.skipped for cell in found.cells}
    assert skipped[str(uap())] == "uap needs gradients; the encoder gives labels only"


def test_it_has_no_ladder_and_enters_the_worst_case(tmp_path: Path) -> None:
    text = Path(load_suite("smoke").path).read_text().partition("perturbations:")[0]
    text += "perturbations:\n  - {attack: uap, norm: linf, eps: [12/255, 20/255], examples: 40, steps: 10}\n  - worst\n"
    (tmp_path / "u.yaml").write_text(text)
    attacks = [p for p in load_suite(str(tmp_path / "u.yaml")).perturbations if isinstance(p, Adversarial)]
    assert [attack.ladder for attack in attacks] == [(), ()]
    found = {str(r.perturbation): r for r in run(str(tmp_path / "u.yaml"), "linear", out=tmp_path / "o", workers=1)}
    small, large = (flags_of(found[str(attack)]) for attack in attacks)
    np.testing.assert_array_equal(flags_of(found["worst linf 20/255"]), small & large)


def test_a_cascade_and_a_descent_take_it(tmp_path: Path) -> None:
    columns = uap(), Adversarial("fgsm", Threat("linf", Fraction(12, 255))), Worst(uap().threat)
    alone = {str(r.perturbation): r.n_correct for r in run(suite(*columns), "linear", out=tmp_path / "a", workers=1)}
    for mode in ("cascade", "descending"):
        found = run(suite(*columns), "linear", out=tmp_path / mode, workers=1, mode=mode)
        assert alone["worst linf 12/255"] in [r.n_correct for r in found if isinstance(r.perturbation, Worst)]
