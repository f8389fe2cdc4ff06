"""Recalls on the boards: exact without an attack, and bounds if the attack has another goal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from columns import column

from rlbench.cli.console import describe_recalls
from rlbench.core import Record
from rlbench.report.boards import leaderboard, recall
from rlbench.report.boards import reported as paper
from rlbench.report.boards.tables import frame

RECALLS = {f"{way} R@{k}": share for way, share in (("x-to-text", 0.4), ("text-to-x", 0.3)) for k in (1, 5, 10)}


def record(perturbation: str, n_correct: int, task: str = "msrvtt", **recalls: float) -> Record:
    own = {**RECALLS, "x-to-text R@1": n_correct / 50, **recalls} if perturbation[:5] != "worst" else {}
    facts = {"checkpoint": "c", "anchors": "a", "data": "d", "seed": 0, "protocol": perturbation}
    return Record(
        key=f"{task} {perturbation}", suite="video-msrvtt", suite_version=1, task=task, modality="video", model="mine",
        backbone="b", perturbation=column(perturbation), n=50, n_correct=n_correct, error=None, forwards=0, backwards=0,
        provenance={**facts, **own},
    )  # fmt: skip


RECORDS = [
    record("apgd-ce linf 2/255", 5, **{"x-to-text R@5": 0.123456}),
    record("clean", 20),
    record("fog 3", 15),
    record("fog 3 + pgd linf 2/255", 4),
    record("worst linf 2/255", 5),
]


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "mine" in line]


def test_a_board_has_recalls_in_both_directions() -> None:
    text = leaderboard.render(frame(RECORDS), "mine")
    title, _, rest = text.partition("## video-msrvtt v1: recalls")
    assert "| ≤" not in title and "is a bound from above" in rest
    exact = ["40.0", "40.0", "40.0", "30.0", "30.0", "30.0"]
    assert lines(rest) == [
        ["mine", "50", "clean", *exact],
        ["mine", "50", "apgd-ce linf 2/255", "10.0", "≤ 12.3", "≤ 40.0", "≤ 30.0", "≤ 30.0", "≤ 30.0"],
        ["mine", "50", "fog 3", "30.0", *exact[1:]],
        ["mine", "50", "fog 3 + pgd linf 2/255", "8.0", *[f"≤ {share}" for share in exact[1:]]],
    ]
    assert leaderboard.render(frame(reversed(RECORDS)), "mine") == text


def test_the_robust_recall_is_exact_at_the_task_s_own_rank() -> None:
    one = record("pgd linf 2/255", 5, "msrvtt(R@5)")
    (row,) = lines(leaderboard.render(frame([one]), "mine").partition(": recalls")[2])
    assert row[3:6] == ["≤ 10.0", "40.0", "≤ 40.0"]


def test_boards_without_retrieval_have_no_recalls() -> None:
    plain = record("clean", 20)
    without = frame(
        [Record(**{**vars(plain), "provenance": {k: v for k, v in plain.provenance.items() if "R@" not in k}})]
    )
    assert "recalls" not in leaderboard.render(without, "mine").lower()
    both = frame([plain, Record(**{**vars(plain), "suite": "video", "key": "k", "provenance": {}})])
    assert leaderboard.render(both, "mine").count(": recalls") == 1
    assert "No records." in leaderboard.render(frame([]), "mine")


@pytest.mark.parametrize("records", [[], RECORDS])
def test_the_paper_board_has_them_under_measured(records) -> None:
    reported = Path(leaderboard.boards()[0].page).with_name(paper.REPORTED)
    part = paper.render(reported, records).partition("## MSR-VTT")[2].partition("\n## ")[0]
    assert ("≤ 12.3" in part.partition("### measured")[2]) == bool(records)


def test_a_recall_among_a_part_of_the_gallery_is_named_by_its_size() -> None:
    """In new records by its name; in old ones since they have fewer media than the gallery has classes."""
    way = {k: v for k, v in RECALLS.items() if k.startswith("x-")}
    part = {f"text-to-x R@{k} of 50": 0.9 for k in (1, 5, 10)} | {"text-to-x median rank of 50": 1.0}
    one = record("clean", 20)
    facts = {k: v for k, v in one.provenance.items() if "R@" not in k}
    new = Record(**{**vars(one), "provenance": {**facts, **way, **part}})
    old = Record(**{**vars(one), "provenance": {**one.provenance, "classes": 80}})
    for found, share in ((new, "90.0"), (old, "30.0")):
        text = leaderboard.render(frame([found]), "mine").partition(": recalls")[2]
        assert "| text-to-x R@1 of 50 " in text and "text-to-x R@1  " not in text and "to be compared with" in text
        assert lines(text)[0][-3:] == [share] * 3
        assert list(recall.recalls({**vars(found), **found.provenance}, found.perturbation))[3] == "text-to-x R@1 of 50"
    both = leaderboard.render(frame([new, Record(**{**vars(one), "n": 90, "key": "k"})]), "mine")
    assert both.count(": recalls, n = ") == 2  # never in one table


def test_all_recalls_of_a_descending_attack_are_bounds() -> None:
    (row,) = lines(leaderboard.render(frame([record("pgd linf 2/255 descending", 5)]), "mine").partition("recalls")[2])
    assert all(share.startswith("≤ ") for share in row[3:])


def test_a_run_prints_bounds_as_bounds() -> None:
    shown = describe_recalls(record("pgd linf 2/255", 5))
    assert shown["x-to-text R@1"] == "10.0" and shown["text-to-x R@1"] == "≤ 30.0"
    one = record("pgd linf 2/255", 5)
    others = (replace(one, modality="thermal"), replace(one, task="cross-modal(scenes:image)"))
    assert len({tuple(describe_recalls(each).values()) for each in (one, *others)}) == 3  # rows of one listing


@pytest.mark.parametrize(("form", "sign"), [("", "≤ "), ("(R@1)", "")])
def test_recalls_of_the_scene_are_exact_only_where_it_is_attacked(form: str, sign: str) -> None:
    found = {"x-to-image R@1": 0.1, "x-to-image R@5": 0.2, "image-to-x R@1 of 50": 0.3, "image-to-x median rank": 4.0}
    one = record("pgd linf 2/255", 5, f"cross-modal(scenes:image){form}")
    cell = {"n": 50, "task": one.task, **found}
    assert recall.recalls(cell, one.perturbation) == {
        "x-to-image R@1": f"{sign}10.0",
        "x-to-image R@5": "≤ 20.0",
        "image-to-x R@1 of 50": "≤ 30.0",
        "image-to-x median rank": "≥ 4",
    }
    assert recall.recalls(cell, column("clean"))["x-to-image R@1"] == "10.0"
