"""Black boxes in a run: skipped cells, what records say, budgets, failures and resume, with a real local server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from black_boxes import Served, describe, serve
from torch import Tensor

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Record, Suite, Threat, Worst
from rlbench.core.errors import FieldError, KnowledgeError, RLBenchError, SoundnessWarning
from rlbench.core.suite import load_suite
from rlbench.encoders.black_box import transport
from rlbench.engine.attack.api import attack
from rlbench.engine.cells.knowledge import restrict
from rlbench.engine.cells.modes import vary
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.store.lines import from_line, to_line
from rlbench.store.perturbations import from_columns, to_columns

T = Threat("linf", Fraction(16, 255))
PGD, RAYS = Adversarial("pgd", T), Adversarial("rays", T, (("queries", 60),))
SQUARE = Adversarial("square", T, (("queries", 60),))
FOG = Corrupted("gaussian_noise", 1)
N = 12


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RLBENCH_QUERIES", raising=False)
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)


@pytest.fixture(params=["scores", "labels"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serve(describe(request.param)) as one:
        yield one


def _suite(*perturbations: Any) -> Suite:
    return replace(load_suite("smoke"), perturbations=(Clean(), *perturbations), examples=N)


def _run(suite: Suite, served: Served, out: Path, **options: Any) -> dict[str, Record]:
    records = run(suite, served.url, out=out, workers=1, **options)
    return {str(record.perturbation): record for record in records}


def test_planning_asks_nothing_and_says_what_is_skipped(served: Served, tmp_path: Path) -> None:
    found = plan(_suite(PGD, RAYS, SQUARE, Worst(T)), served.url, store=tmp_path / "out", pilot=True)
    gives = "scores" if served.label == "scores" else "labels"
    knowledge = gives.removesuffix("s")
    cells = {str(cell.perturbation): cell.skipped for cell in found.cells}
    assert cells["pgd linf 16/255"] == f"pgd needs gradients; the encoder gives {gives} only"
    assert cells[f"rays(queries=60) linf 16/255 {knowledge}"] is None
    assert cells[f"worst linf 16/255 {knowledge}"] is None
    if knowledge == "label":
        assert cells["square(queries=60) linf 16/255"] == "square needs scores; the encoder gives labels only"
    assert served.inputs == 0
    assert found.passes <= N * (1 + 61 + 62)


def test_records_say_knowledge_and_queries_and_are_never_sound(served: Served, tmp_path: Path) -> None:
    records = _run(_suite(PGD, RAYS, SQUARE, Worst(T)), served, tmp_path / "out")
    knowledge = served.label.removesuffix("s")
    rays, worst = records[f"rays(queries=60) linf 16/255 {knowledge}"], records[f"worst linf 16/255 {knowledge}"]
    assert "pgd linf 16/255" not in records
    assert records["clean"].n_correct > worst.n_correct <= rays.n_correct  # type: ignore[operator]
    for record in records.values():
        assert record.error is None
        assert record.provenance["knowledge"] == knowledge
        assert record.provenance["soundness"] == "partial"
        assert "H7: the encoder gives no gradients" in str(record.provenance["soundness_failed"])
        assert from_line(to_line(record)) == record
        assert from_columns(to_columns(record.perturbation)) == record.perturbation
    assert records["clean"].provenance["queries"] == 1
    assert 2 <= rays.provenance["queries"] <= 61  # type: ignore[operator]
    used = [json.loads(file.read_text())["used"] for file in (tmp_path / "out" / "queries").glob("*.json")]
    assert used == [served.inputs]


def test_the_judge_and_a_new_store_pay_for_nothing_twice(served: Served, tmp_path: Path) -> None:
    first = _run(_suite(RAYS), served, tmp_path / "one")
    paid = served.inputs
    second = _run(_suite(RAYS), served, tmp_path / "two", batch_size=5)
    assert served.inputs == paid
    assert [r.flags for r in first.values()] == [r.flags for r in second.values()]


def test_a_spent_budget_fails_the_cell_and_a_larger_one_continues(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, column = tmp_path / "out", f"rays(queries=60) linf 16/255 {served.label.removesuffix('s')}"
    monkeypatch.setenv("RLBENCH_QUERIES", str(N + 5))
    cut = _run(_suite(RAYS), served, out)
    assert cut["clean"].error is None
    assert cut[column].n_correct is None and "queries are spent" in str(cut[column].error)
    assert "\n" not in str(cut[column].error)
    assert served.inputs <= N + 5
    monkeypatch.setenv("RLBENCH_QUERIES", "100000")
    whole = _run(_suite(RAYS), served, out)
    assert whole[column].error is None
    paid = served.inputs
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "other"))
    fresh = _run(_suite(RAYS), served, tmp_path / "fresh")
    assert served.inputs == 2 * paid  # nothing was paid twice
    assert fresh[column].flags == whole[column].flags


def test_a_server_that_breaks_fails_every_cell_and_none_is_robust(served: Served, tmp_path: Path) -> None:
    suite = _suite(RAYS)
    plan(suite, served.url, store=tmp_path / "out")
    served.spoil = lambda text: text if "protocol" in text else "<html>"
    records = _run(suite, served, tmp_path / "out")
    for record in records.values():
        assert record.n_correct is None and "answered what is no JSON" in str(record.error)
    served.spoil = None
    assert [record.error for record in _run(suite, served, tmp_path / "out").values()] == [None] * 2


def test_a_server_that_breaks_during_an_attack_fails_its_cell(served: Served, tmp_path: Path) -> None:
    served.spoil = lambda text: text if served.inputs <= N else json.dumps({served.label: []})
    records = list(_run(_suite(RAYS), served, tmp_path / "out").values())
    assert records[0].error is None
    assert records[1].n_correct is None and "gave 0 answers for" in str(records[1].error)


def test_a_suite_where_nothing_is_left_is_refused(served: Served, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="nothing to run but clean inputs: pgd needs gradients"):
        plan(_suite(PGD, Worst(T)), served.url, store=tmp_path / "out")
    skipped = plan(_suite(PGD), [served.url, "linear"], store=tmp_path / "out").cells
    assert {cell.model for cell in skipped if cell.skipped} == {served.url}


def test_corruptions_run_and_compositions_follow_their_attack() -> None:
    suite = _suite(FOG, Composed(FOG, PGD), Composed(FOG, RAYS))
    kept, skipped = restrict(suite, "label")
    assert [str(p) for p, _ in skipped] == ["gaussian_noise 1 + pgd linf 16/255"]
    assert str(kept.perturbations[-1]) == "gaussian_noise 1 + rays(queries=60) linf 16/255 label"
    assert restrict(suite, "white-box") == (suite, ())


def test_a_cascade_keeps_the_attacks_that_can_run() -> None:
    small = Threat("linf", Fraction(4, 255))
    suite = vary(_suite(replace(PGD, threat=small), RAYS, SQUARE), mode="cascade")
    kept, skipped = restrict(suite, "score")
    (worst,) = kept.perturbations[1:]
    assert isinstance(worst, Worst) and worst.threat.knowledge == "score"
    assert {one.attack for one in worst.attacks} == {"rays", "square"}
    assert [str(p) for p, _ in skipped] == ["worst linf 4/255"]


def _scores(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], x[:, 1], x[:, 0] - x[:, 1]], dim=1)


X = torch.tensor([[0.6, 0.2], [0.2, 0.9], [0.5, 0.48], [0.9, 0.1]])
Y = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("name", ["rays", "noise"])
def test_a_callable_that_answers_labels(name: str) -> None:
    few = {"rays": {"queries": 100}, "noise": {"points": 50}}[name]
    found = attack(lambda x: _scores(x).argmax(1), X, Y, name, eps=0.1, **few)  # type: ignore[arg-type]
    assert found.broken.tolist() == [False, False, True, True]
    assert found.distance[3] == 0 and found.badge == "partial"
    as_array = attack(lambda x: _scores(x).argmax(1).numpy(), X, Y, name, eps=0.1, **few)  # type: ignore[arg-type]
    assert torch.equal(as_array.x_adv, found.x_adv)


def test_a_callable_that_answers_labels_in_l2() -> None:
    found = attack(lambda x: _scores(x).argmax(1), X, Y, "hopskipjump", norm="l2", eps=0.1, queries=300)
    assert found.broken.tolist() == [False, False, True, True]
    assert int(found.forwards.max()) <= 302  # with the clean pass and the judge's


def test_a_label_that_no_example_has_is_an_error_of_the_classifier() -> None:
    found = attack(
        lambda x: torch.where(x[:, 0] > 0.5, 7, 0), X, torch.zeros(4, dtype=torch.int64), "rays", eps=0.35, queries=99
    )
    assert found.broken.tolist() == [True, True, True, True]
    assert (found.x_adv[1] - X[1]).abs().max() <= 0.35 + 1e-6


def test_an_attack_that_needs_more_than_labels_is_one_line() -> None:
    for name, needs in (("pgd", "gradients"), ("square", "scores"), ("autoattack", "gradients")):
        with pytest.raises(RLBenchError, match=f"{name} needs {needs}; the classifier gives labels only: use rays"):
            attack(lambda x: _scores(x).argmax(1), X, Y, name, eps=0.1)
    with pytest.raises(RLBenchError, match="returned the label -1; labels are 0 or larger"):
        attack(lambda x: _scores(x).argmax(1) - 1, X, Y, "rays", eps=0.1)


def test_a_callable_that_answers_scores_without_a_gradient(recwarn: pytest.WarningsRecorder) -> None:
    found = attack(lambda x: 20 * _scores(x).detach(), X, Y, "square", eps=0.1, queries=100)
    assert found.broken.tolist() == [False, False, True, True] and found.badge == "partial"
    assert not [one for one in recwarn if issubclass(one.category, SoundnessWarning)]


def test_a_wrong_knowledge_in_a_record_is_named() -> None:
    with pytest.raises(FieldError, match="knowledge is 'none'; it must be one of white-box, score, label"):
        from_columns({**to_columns(PGD), "knowledge": "none"})
