"""Attacks on a surrogate: judged on the model under test, exact where both are one model, named in keys and records."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sensor_oracle as oracle
import text_oracle
import torch
from affine_bench import N, Shift, adversarial, bench, done

import rlbench
from rlbench.attacks.text import edits
from rlbench.core import Adversarial, Box, Clean, Composed, Corrupted, Record, Suite, Surrogate, Threat, Worst, registry
from rlbench.core.errors import KnowledgeError, SuiteError
from rlbench.core.seeds import ExampleStreams, generator
from rlbench.core.suite import load_suite
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block import surrogates
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.block.surrogates import explain_surrogate
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.store.flags import flags_of
from rlbench.store.lines import from_line, to_line
from rlbench.store.perturbations import from_columns, to_columns

T = Threat("linf", Fraction(16, 255))
ATTACKS = [
    ("pgd", (("steps", 4),)),
    ("apgd-t", (("steps", 4), ("targets", 2))),
    ("adaptive", (("again", 1), ("steps", 4), ("targeted", 3), ("targets", 1))),
    ("square", (("queries", 10),)),
]


def of(name: str, fields: Any, eps: int, surrogate: str = "", *, ladder: tuple[int, ...] = ()) -> Adversarial:
    steps = tuple(Fraction(k, 255) for k in ladder)
    model = Surrogate(surrogate) if surrogate else None
    return Adversarial(name, Threat("linf", Fraction(eps, 255)), fields, steps, surrogate=model)


def suite(*perturbations: Any, of: str = "smoke", n: int = 48) -> Suite:
    return replace(load_suite(of), perturbations=(Clean(), *perturbations), examples=n)


def records_of(*perturbations: Any, model: str, out: Path, of: str = "smoke", n: int = 48) -> dict[str, Record]:
    return {str(r.perturbation): r for r in run(suite(*perturbations, of=of, n=n), model, out=out, workers=1)}


@pytest.mark.parametrize(
    ("model", "world", "eps"),
    [("linear", "smoke", (4, 8)), pytest.param("languagebind", "thermal", (1, 4), marks=pytest.mark.slow)],
)
def test_the_model_itself_as_surrogate_is_the_white_box_attack(
    model: str, world: str, eps: tuple[int, int], tmp_path: Path
) -> None:
    attacks = [of(name, fields, eps[1], ladder=eps[:1]) for name, fields in ATTACKS]
    attacks += [of(name, fields, eps[0]) for name, fields in ATTACKS]
    own = [replace(attack, surrogate=Surrogate(model)) for attack in attacks]
    found = records_of(*attacks, *own, model=model, out=tmp_path, of=world, n=24)
    for white, transferred in zip(attacks, own, strict=True):
        one, other = found[str(white)], found[str(transferred)]
        assert one.error is None and other.error is None
        np.testing.assert_array_equal(flags_of(one), flags_of(other), str(white))
    left = [found[str(attack)].n_correct or 0 for attack in attacks]
    assert 0 < min(left) < (found["clean"].n_correct or 0)


def other_bench(one: Bench) -> Bench:
    """A bench of the same task with another affine encoder."""
    other = bench()
    other.classifier.encoder.weights = torch.from_numpy(generator("another").standard_normal((4, 4))).float()  # type: ignore[attr-defined]
    return replace(other, suite=one.suite)


def test_points_are_those_of_an_attack_on_the_surrogate() -> None:
    b = bench()
    b.surrogates["other"] = other = other_bench(b)
    attack = replace(adversarial("fgsm", "0.2"), surrogate=Surrogate("other"))
    clean, block = done(b)[0], done(b, attack)[0]
    rows = torch.from_numpy(clean.correct).nonzero()[:, 0]
    examples = b.inputs.load(0, N)
    x, y, ball = examples.x[rows], examples.y[rows], b.ball(attack.threat)
    streams = ExampleStreams(b.seed, tuple(examples.ids[k] for k in rows.tolist()), "any")
    x_adv = registry.make("attack", "fgsm")(Meter(other.classifier, len(rows)), x, y, ball, streams)
    direct = judge(Meter(b.classifier, len(rows)), x_adv, x, y, ball)
    white = done(b, replace(attack, surrogate=None))[0]
    assert white.correct.sum() < block.correct.sum() < clean.correct.sum()
    # fgsm on the surrogate stops at x where that errs already; the transferred attack takes its step there, too
    same = (Meter(other.classifier, len(rows))(x).argmax(1) == y).numpy()
    assert 0 < same.sum() < len(same)
    np.testing.assert_array_equal(block.correct[rows][same], direct.correct.numpy()[same])


def test_it_goes_on_past_the_surrogates_first_error() -> None:
    b = bench()
    b.surrogates["other"] = other_bench(b)
    attack = replace(adversarial("pgd", "0.2", steps=20), surrogate=Surrogate("other"))
    clean, block = done(b)[0], done(b, attack)[0]
    attacked = clean.correct
    assert (block.forwards[attacked] == 1).all() and (block.backwards == 0).all()  # the judge's alone
    assert block.evidence["other_backwards"] == 20 * attacked.sum()
    assert block.evidence["other_forwards"] == 21 * attacked.sum()


def test_an_attack_that_crashes_fails_its_cell_alone() -> None:
    b = bench()
    b.surrogates["other"] = replace(b, classifier=replace(b.classifier, scale=float("nan")))
    broken = replace(adversarial("pgd", "0.2", steps=2), surrogate=Surrogate("other"))
    clean = evaluate(b, [Group()], 0, N, None, lambda rows: None)[0]
    groups = [Group(None, (broken,)), Group(None, (adversarial("fgsm", "0.2"),))]
    bad, good = evaluate(b, groups, 0, N, clean, lambda rows: None)  # type: ignore[arg-type]
    assert "not finite" in bad.reason and good.correct.any()  # type: ignore[union-attr]


def test_a_record_names_the_surrogate_and_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.PluginInfo("corruption", "shift", Shift.__module__, "Shift", "")
    table = {**registry.entries(), ("corruption", "shift"): entry}
    monkeypatch.setattr(registry, "entries", lambda: table)
    attack, mixed = of("pgd", (("steps", 4),), 8, "linear"), Composed(Corrupted("shift", 1), of("fgsm", (), 8))
    mixed = replace(mixed, adversarial=replace(mixed.adversarial, surrogate=Surrogate("linear")))
    found = records_of(attack, mixed, Worst(attack.threat), model="linear", out=tmp_path)
    one = found["pgd(steps=4) from linear linf 8/255"]
    weights = rlbench.load_encoder("linear").sha256["image"]
    assert one.provenance["surrogate_weights"] == weights
    assert found["shift 1 + fgsm from linear linf 8/255"].provenance["surrogate_weights"] == weights
    assert not any(record.error for record in found.values())
    right, left = found["clean"].n_correct or 0, one.n_correct or 0
    assert one.forwards == right + int(str(one.provenance["other_forwards"]))
    assert one.backwards == int(str(one.provenance["other_backwards"])) == 4 * right
    assert found["worst linf 8/255"].n_correct == left < right
    for record in found.values():
        assert from_line(to_line(record)) == record
        assert from_columns(to_columns(record.perturbation)) == record.perturbation


def test_the_key_holds_what_the_surrogate_is(tmp_path: Path) -> None:
    def key(surrogate: str) -> str:
        planned = plan(suite(of("pgd", (), 4, surrogate), of="thermal"), "rlbind", store=tmp_path).pairs[0]
        return next(key for p, key in planned.keys.items() if isinstance(p, Adversarial))

    assert len({key("languagebind"), key("tecoa"), key(""), key("rlbind")}) == 4
    assert key("tecoa") == key("tecoa")


@pytest.mark.parametrize("kind", ["score", "label"])
def test_a_black_box_needs_no_query_but_the_judges(kind: str, tmp_path: Path) -> None:
    attacks = (of("pgd", (("steps", 5),), 8, "linear"), of("pgd", (("steps", 5),), 8), Worst(T))
    found = records_of(*attacks, model=f"black_boxes:make_{kind}_box", out=tmp_path)
    white = records_of(*attacks[1:2], model="linear", out=tmp_path / "white")["pgd(steps=5) linf 8/255"]
    one = found[f"pgd(steps=5) from linear linf 8/255 {kind}"]
    assert set(found) == {"clean", str(one.perturbation), f"worst linf 16/255 {kind}"}
    assert one.n_correct == white.n_correct and one.provenance["queries"] == 1


def test_a_misfit_is_skipped_with_a_line(tmp_path: Path) -> None:
    other, pgd = of("pgd", (), 4, "linear"), of("fgsm", (), 4)
    found = plan(suite(other, pgd, Worst(pgd.threat), of="thermal"), "rlbind", store=tmp_path)
    reasons = {str(cell.perturbation): cell.skipped for cell in found.cells}
    assert reasons["pgd from linear linf 4/255"] == "pgd from linear: linear:oracle has no thermal; it has image"
    assert reasons["fgsm linf 4/255"] is None and reasons["worst linf 4/255"] is None
    with pytest.raises(KnowledgeError, match=r"nothing to run but clean inputs: pgd from linear: linear:oracle has no"):
        plan(suite(other, of="thermal"), "rlbind", store=tmp_path)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        (Box(shape=(1, 2, 2), low=-1.0), "1 x 2 x 2 intensity in [-1, 1]"),
        (Box(shape=(1, 4, 1)), "1 x 4 x 1 intensity in [0, 1]"),
    ],
)
def test_another_input_is_a_misfit(box: Box, said: str) -> None:
    b = bench()
    b.surrogates["other"] = bench(box=box)
    reason = explain_surrogate(b, replace(adversarial("fgsm", "0.2"), surrogate=Surrogate("other")))
    assert (
        reason == f"fgsm from other: its input is {said}, and here 1 x 2 x 2 intensity in [0, 1]; they must be the same"
    )


def test_a_surrogate_without_gradients_is_a_misfit() -> None:
    b = bench()
    b.surrogates["other"] = other = bench()
    other.encoder.knowledge = "label"  # type: ignore[attr-defined]
    attack = replace(adversarial("fgsm", "0.2"), surrogate=Surrogate("other"))
    assert explain_surrogate(b, attack) == "fgsm from other: fgsm needs gradients; the encoder gives labels only"
    assert explain_surrogate(b, replace(attack, attack="rays")) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("languagebnd", "no model named 'languagebnd'; did you mean 'languagebind'?"),
        ("black_boxes:make_label_box", "black_boxes:make_label_box would run code, which a suite may not ask for"),
        ("runs/none", "runs/none is not a trained model"),
    ],
)
def test_a_surrogate_that_cannot_be_loaded_is_an_error(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"thermal\.yaml: from: ") as error:
        plan(suite(of("pgd", (), 4, name), of="thermal"), "rlbind", store=tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_cascade_takes_transferred_attacks(tmp_path: Path) -> None:
    attacks = of("pgd", (("steps", 4),), 8, "linear"), of("fgsm", (), 4)
    whole = replace(load_suite("smoke"), perturbations=(Clean(), *attacks, *(Worst(a.threat) for a in attacks)))
    alone = {str(r.perturbation): r.n_correct for r in run(whole, "linear", out=tmp_path / "a", workers=1)}
    found = run(whole, "linear", out=tmp_path / "b", workers=1, mode="cascade")
    worst = {str(r.perturbation): r.n_correct for r in found if isinstance(r.perturbation, Worst)}
    assert worst == {name: alone[name] for name in worst} and len(worst) == 2


def test_a_search_in_low_precision_is_never_finished_on_the_model(tmp_path: Path) -> None:
    whole = suite(of("pgd", (("steps", 4),), 8, "linear"), of("uap", (("examples", 20), ("steps", 4)), 8))
    for record in run(whole, "linear", out=tmp_path, workers=1, precision="bf16")[1:]:
        assert record.error is None and record.provenance["searched_again"] == 0
        assert str(record.perturbation).endswith(" bf16") and 0 < (record.n_correct or 0) < 48


def load_plain(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Makes a model of the tests' own code, which suites may not name, every surrogate."""

    def load(bench: Bench, name: str) -> Bench:
        return prepare(replace(bench.suite, perturbations=(Clean(),)), model)

    monkeypatch.setattr(surrogates, "_load", load)


def test_several_sensors_are_attacked_through_a_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")
    model = "sensor_oracle:linear_sensors"
    load_plain(monkeypatch, model)
    attack = "{attack: apgd-ce, steps: 10, norm: linf, eps: 0.025, from: other, sensors: all}"
    one = "{attack: uap, steps: 5, examples: 40, norm: linf, eps: 0.06, sensors: image}"
    file = oracle.suite_file(tmp_path, attack, f"{{missing: depth, then: {attack}}}", one)
    found = oracle.flags(run(str(file), model, out=tmp_path / "out", workers=1))
    eps = dict.fromkeys(oracle.SCALES, 0.025)
    name = "apgd-ce(steps=10) from other linf 0.025 on"
    assert found[f"{name} all"] == oracle.survivors(eps)
    assert found[f"without depth + {name} all"] == oracle.survivors(eps, missing=["depth"])
    image = found["uap(examples=40, steps=5) linf 0.06 on image"]
    assert sum(oracle.survivors({"image": 0.06})) <= sum(image) < sum(oracle.survivors({}))


def test_edited_names_and_transferred_points_are_judged_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "text_oracle")
    monkeypatch.setattr(edits, "ALPHABET", "ex")
    load_plain(monkeypatch, "text_oracle:letters")
    attack = "{attack: apgd-ce, norm: linf, eps: 0.01, steps: 20, from: other}"
    lines = attack, "{text: typo-any, edits: 1}", f"{{text: typo-any, edits: 1, then: {attack}}}"
    file = text_oracle.suite_file(tmp_path, *lines)
    found = text_oracle.flags(run(file, "text_oracle:letters", out=tmp_path / "out", workers=1))
    alone, text, joint = list(found.values())[1:]
    assert "typo-any 1 + apgd-ce(steps=20) from other linf 0.01" in found
    assert not (joint & ~(alone & text)).any() and 0 < joint.sum() < (alone & text).sum()
