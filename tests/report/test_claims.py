"""Methods compared over rounds: pooling, paired tests, and sentences that agree with the tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from columns import column

from rlbench.core import Record
from rlbench.core.errors import StoreError
from rlbench.report.boards.leaderboard import render_rounds
from rlbench.report.boards.methods import MEASURES, compare_methods, methods, report

CLEAN, ROBUST, UNSEEN_CLEAN, _ = MEASURES


def record(model: str, turn: str, perturbation: str, bits: list[int], *, suite: str = "toy", **facts: object) -> Record:
    flags = np.packbits(np.array(bits, dtype=bool)).tobytes().hex()
    same = {"data": f"d{turn}", "anchors": "a", "protocol": perturbation, "seed": 0, "round": turn}
    return Record(
        key=f"{model} {turn} {perturbation} {suite}",
        suite=suite,
        suite_version=1,
        task="thermal-world",
        modality="thermal",
        model=f"{model}:mini",
        backbone="mini",
        perturbation=column(perturbation),
        n=len(bits),
        n_correct=sum(bits),
        error=None,
        forwards=0,
        backwards=0,
        flags=flags,
        provenance={**same, "training_forwards": 8000, "training_backwards": 4000, **facts},
    )


def rounds(model: str, *, clean: list[int], robust: list[int], turns: str = "12", **facts: object) -> list[Record]:
    return [
        record(model, turn, name, bits, **facts)
        for turn in turns
        for name, bits in (("clean", clean), ("worst linf 4/255", robust))
    ]


def test_flags_are_pooled_over_rounds_and_paired() -> None:
    """30 pairs per round: 12 that only the first gets right, 3 that only the second does; p from the binomial sum."""
    own = rounds("rlbind", clean=[1] * 30, robust=[1] * 12 + [0] * 3 + [1] * 15)
    other = rounds("tecoa", clean=[1] * 30, robust=[0] * 12 + [1] * 3 + [1] * 15)
    first, second = methods([*other, *own], "thermal")
    assert (first.name, second.name) == ("rlbind:mini", "tecoa:mini")
    (one,) = compare_methods(first, [second], ROBUST).values()
    assert (one.only_own, one.only_other, one.points) == (24, 6, 100 * 18 / 60)
    from math import comb

    assert one.p == pytest.approx(2 * sum(comb(30, k) for k in range(7)) / 2**30)
    assert one.verdict == "above" and compare_methods(second, [first], ROBUST)[first.name].verdict == "below"
    (tie,) = compare_methods(first, [second], CLEAN).values()
    assert (tie.p, tie.points, tie.verdict) == (1.0, 0.0, "level")
    assert first.score(ROBUST).startswith("90.0 [79.9, 95.3] (90.0 to 90.0)")


def test_only_rounds_that_both_have_are_compared() -> None:
    own = rounds("rlbind", clean=[1] * 8, robust=[1] * 8, turns="123")
    other = rounds("fare", clean=[1] * 8, robust=[0] * 8, turns="1")
    found = {method.name: method for method in methods([*own, *other], "thermal")}
    (one,) = compare_methods(found["rlbind:mini"], [found["fare:mini"]], ROBUST).values()
    assert one.only_own == 8 and one.p == pytest.approx(2 / 2**8)


def test_ties_are_reported_as_ties_and_p_is_adjusted_for_several_comparisons() -> None:
    own = rounds("rlbind", clean=[1] * 40, robust=[1] * 6 + [0] * 34, turns="1")
    weak = rounds("languagebind", clean=[1] * 40, robust=[0] * 40, turns="1")
    one = report([*own, *weak], subject="rlbind")
    assert "**robust**: rlbind is above languagebind (thermal)." in one  # 6:0, p = .031
    assert "more robust than every other method on every modality holds" in one
    several = [r for name in ("fare", "tecoa") for r in rounds(name, clean=[1] * 40, robust=[0] * 40, turns="1")]
    three = report([*own, *weak, *several], subject="rlbind")
    assert "**robust**: rlbind is level with" in three  # 3 x .031 is not below .05
    assert "does not hold as a whole" in three and "is above" not in three


def test_an_ablation_has_a_row_but_is_not_compared() -> None:
    own = rounds("rlbind", clean=[1] * 40, robust=[1] * 6 + [0] * 34, turns="1")
    ablated = rounds("rlbind-no-distil", clean=[1] * 40, robust=[0] * 40, turns="1")
    weak = rounds("fare", clean=[1] * 40, robust=[0] * 40, turns="1")
    text = report([*own, *ablated, *weak], subject="rlbind")
    assert "| rlbind-no-distil:mini |" in text and "rlbind is above fare (thermal)." in text  # .031, for one rival


def test_rows_have_the_cost_and_the_data_of_training() -> None:
    text = report(rounds("rlbind", clean=[1], robust=[1], sees="names of unseen classes"), subject="rlbind")
    assert "8k f, 4k b" in text and "names of unseen classes" in text


def test_unseen_classes_are_columns_of_their_own() -> None:
    seen = rounds("rlbind", clean=[1, 1], robust=[1, 0], turns="1")
    unseen = [replace(r, suite="toy-unseen", n_correct=1, flags="80") for r in seen]
    (method,) = methods([*seen, *unseen], "thermal")
    assert method.score(CLEAN).startswith("100.0") and method.score(UNSEEN_CLEAN).startswith("50.0")


def test_records_of_other_data_and_failed_cells_are_refused() -> None:
    own = rounds("rlbind", clean=[1], robust=[1], turns="1")
    other = [
        replace(r, provenance={**r.provenance, "data": "else"})
        for r in rounds("fare", clean=[1], robust=[1], turns="1")
    ]
    with pytest.raises(StoreError, match="tested in another way"):
        methods([*own, *other], "thermal")
    failed = [replace(r, flags=None, n_correct=None, error="crash") for r in own]
    with pytest.raises(StoreError, match="crash"):
        methods(failed, "thermal")


def test_the_board_is_the_same_in_any_order_and_explains_the_mini_backbone() -> None:
    records = [*rounds("rlbind", clean=[1], robust=[1]), *rounds("fare", clean=[1], robust=[0])]
    page = render_rounds(records, "Board")
    assert page == render_rounds(records[::-1], "Board") and "not LanguageBind's" in page
