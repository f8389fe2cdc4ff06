"""mCE and relative accuracy against published numbers; what a board says of corruptions."""

from dataclasses import replace

import numpy as np
import pytest
from columns import column as parse

from rlbench.core import Record
from rlbench.core.stats.metrics import mean_corruption_error, relative_accuracy
from rlbench.core.stats.severity_trend import compare_means, measure_falls
from rlbench.report.boards.corruptions import collect
from rlbench.report.boards.leaderboard import render
from rlbench.report.boards.tables import frame

# Hendrycks and Dietterich, 2019, tables 1 and 4: AlexNet's mean errors, and ResNet-50's corruption errors, in %.
ALEXNET = (88.6, 89.4, 92.3, 82.0, 82.6, 78.6, 79.8, 86.7, 82.7, 81.9, 56.5, 85.3, 64.6, 71.8, 60.7)
RESNET50 = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)


def test_mce_is_the_published_one() -> None:
    alexnet = [[error / 100] * 5 for error in ALEXNET]
    resnet = [[error / 100 * share / 100] * 5 for error, share in zip(ALEXNET, RESNET50, strict=True)]
    assert mean_corruption_error(alexnet, alexnet) == pytest.approx(1)
    assert mean_corruption_error(resnet, alexnet) == pytest.approx(0.767, abs=0.005)  # of rounded errors


def test_mce_sums_over_severities_before_it_divides() -> None:
    assert mean_corruption_error([[0.1, 0.5], [0.2, 0.2]], [[0.2, 0.4], [0.1, 0.3]]) == pytest.approx(1.0)
    assert relative_accuracy([0.4, 0.6], 0.8) == pytest.approx(0.625)
    assert mean_corruption_error([[0.1]], [[0.0]]) != mean_corruption_error([[0.1]], [[0.0]])  # not a number


def first(correct: int) -> str:
    """The flags of 100 examples of which the first ones are correct."""
    return np.packbits(np.arange(104) < correct).tobytes().hex()


def record(model: str, column: str, correct: int) -> Record:
    return Record(
        key=f"{model} {column}",
        suite="thermal-c",
        suite_version=1,
        task="thermal-world",
        modality="thermal",
        model=model,
        backbone="mini",
        perturbation=parse(column),
        n=100,
        n_correct=correct,
        error=None,
        forwards=100,
        backwards=0,
        flags=first(correct),
        provenance={"checkpoint": model, "data": "d", "anchors": "a", "seed": 0, "protocol": column, "classes": 10},
    )


def records(model: str, clean: int, *rows: tuple[str, tuple[int, ...]]) -> list[Record]:
    cells = [record(model, f"{name} {s}", n) for name, row in rows for s, n in enumerate(row, 1)]
    return [record(model, "clean", clean), *cells]


BASE = records("languagebind:mini", 80, ("netd", (70, 60, 50, 40, 30)), ("turbulence", (80, 80, 80, 80, 80)))
OURS = records("rlbind:mini", 90, ("netd", (80, 80, 80, 80, 80)), ("turbulence", (70, 70, 70, 70, 70)))


def test_a_board_shows_mean_relative_and_mce() -> None:
    text = render(frame([*BASE, *OURS]), "t")
    assert "## thermal-c v1: natural robustness, 2 corruptions" in text
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    ours = next(line for line in lines if line[0] == "rlbind:mini" and len(line) == 11)
    assert ours[2] == "90.0" and ours[3].startswith("75.0 [") and ours[4] == "83.3"
    assert ours[5] == "95.0"  # (100 / 250 + 150 / 100) / 2
    assert ours[6:] == ["75.0"] * 5
    assert "against languagebind:mini: above: rlbind:mini (+10.0, p < 0.0001)." in text  # 30 examples better, 10 worse
    assert "falls with severity under 1 of 2 corruptions, not under turbulence (+0.0 a severity, p = 1); at" in text
    assert "at every step under 1. Severity 1 costs more than 0 and less than 60 % of what lies between clean" in text
    assert "clean and chance under 1 of 2, not under turbulence (+0.0 %)." in text
    assert ["netd", "80.0", "50.0"] in lines  # the best mean first


def test_who_lacks_or_failed_what_most_have_is_left_out() -> None:
    cut = [one for one in OURS if str(one.perturbation) != "netd 3"]
    failed = [
        replace(one, n_correct=None, error="crashed") if str(one.perturbation) == "netd 3" else one for one in OURS
    ]
    for less in (cut, failed):
        [part] = collect(frame([*BASE, *less]))
        assert [one.model for one in part.models] == ["languagebind:mini"] and part.left == ["rlbind:mini"]
        assert "Left out, since they lack or failed some of these: rlbind:mini." in render(frame([*BASE, *less]), "t")
    third = ("hot_source", (60, 50, 40, 30, 20))
    more = [*BASE, *records("languagebind:mini", 80, third)[1:], *failed, *records("rlbind:mini", 90, third)[1:]]
    [(_, _, models, left)] = collect(frame(more))
    assert left == []
    assert {name for model in models for name in model.accuracy} == {"hot_source", "turbulence"}


def test_without_the_baseline_there_is_no_mce() -> None:
    assert "| - " in render(frame(OURS), "t")
    assert "natural robustness" not in render(frame(OURS[:3]), "t")


def test_where_examples_share_sources_nothing_is_tested() -> None:
    told = [replace(one, provenance={**one.provenance, "sources": 9}) for one in [*BASE, *OURS]]
    text = render(frame(told), "t")
    assert "not apart: rlbind:mini (+10.0, not tested)." in text and "falls with severity under" not in text


def test_a_fall_is_the_least_squares_line_and_its_exact_test() -> None:
    g = np.random.default_rng(0)
    shares = (0.9, 0.8, 0.75, 0.5, 0.55, 0.3)
    rows = [g.random(400) < share for share in shares]
    means = [float(row.mean()) for row in rows]
    few = [np.arange(5) < k for k in (3, 3, 3, 3, 2, 2)]
    found = measure_falls(rows[0], {"down": rows[1:], "up": [rows[0], *rows[4:0:-1]]}, 10)
    assert found["down"].slope == pytest.approx(np.polyfit(range(6), means, 1)[0])
    assert found["down"].falls and not found["down"].steps  # severity 4 is above 3
    assert found["down"].first == pytest.approx((means[0] - means[1]) / (means[0] - 0.1))
    assert found["down"].begins_well and not found["up"].begins_well  # a copy of clean costs nothing
    # One example of five falls, from right to wrong: of its two signs both are as far from 0.
    assert (
        measure_falls(few[0], {"few": few[1:]}, 10)["few"].p == 1.0
        and not measure_falls(few[0], {"few": few[1:]}, 10)["few"].falls
    )


def test_a_gain_is_tested_example_by_example_and_adjusted() -> None:
    reference, better = np.zeros(10, dtype=np.int64), np.ones(10, dtype=np.int64)
    assert compare_means(reference, {"better": better})["better"] == pytest.approx(2 / 2**10)
    both = compare_means(reference, {"better": better, "same": reference})
    assert both == {"better": pytest.approx(4 / 2**10), "same": 1.0}


def test_suites_are_summed_up() -> None:
    other = [replace(one, key=f"{one.key} 2", suite="robot-c") for one in BASE]
    text = render(frame([*BASE, *other]), "t")
    assert "All suites together: languagebind's accuracy falls with severity under 2 of 4 corruptions (50 %)" in text
    assert "All suites" not in render(frame(BASE), "t")
