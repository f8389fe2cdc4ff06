"""A model's report and the picture of a board: their numbers are those of the records."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from commands import Call, fails
from made import made
from PIL import Image

from rlbench.core import Missing, Record
from rlbench.core.errors import UnknownName
from rlbench.report.boards.leaderboard import freeze
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures import board_picture, plots
from rlbench.report.figures.model_report import report
from rlbench.report.figures.plots import draw

COLUMNS = {"clean": 90, "worst linf 2/255": 70, "worst linf 4/255": 50}


def records(model: str = "a:mini", **facts: object) -> list[Record]:
    given = {"soundness": "sound", "checkpoint": "0123456789abcdef99", **facts}
    return [made(model, name, np.arange(100) < ones, **given) for name, ones in COLUMNS.items()]


def test_it_has_the_table_the_badge_the_curves_and_the_provenance() -> None:
    found = report([*records(), *records("b:mini", checkpoint="ff")], "a:mini", "a.png")
    assert "| worst, L∞ 4/255 | 50.0       | 40.4 to 59.6   |" in found.text
    assert "**Soundness: sound**" in found.text and "![" in found.text and "](a.png)" in found.text
    assert "0123456789abcdef" in found.text and "b:mini" not in found.text
    assert "rlbench run --suite thermal --model a:mini --examples 100" in found.text
    again = report(records(seed=7), "a:mini", "a.png")
    assert "--examples 100 --seed 7\n" in again.text and "--seed" not in found.text
    mine = report(records(suite="my-pets"), "a:mini", "a.png")
    assert "rlbench run --suite my-pets.yaml --model a:mini" in mine.text
    assert found.picture is not None and Image.open(BytesIO(found.picture)).format == "PNG"


def test_doubts_have_their_reason() -> None:
    facts = {"soundness": "unreliable", "soundness_failed": "H7: 100% of gradients are zero"}
    text = report(records(**facts), "a:mini", "a.png").text
    assert "**Soundness: unreliable**" in text and "100% of gradients are zero" in text


def test_a_model_without_two_eps_has_no_picture() -> None:
    found = report(records()[:2], "a:mini", "a.png")
    assert found.picture is None and "![" not in found.text


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(UnknownName, match="did you mean 'a:mini'"):
        report(records(), "a:mimi", "a.png")


def test_the_command_writes_both_files(call: Call, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(freeze(records()))
    fails(call("report", "a:mini", "--records", "r.jsonl", "--out", "a.txt"), "must end in .md")
    assert call("report", "a:mini", "--records", "r.jsonl", "--out", "a.md").exit_code == 0
    assert "](a.png)" in (tmp_path / "a.md").read_text() and (tmp_path / "a.png").is_file()


def test_a_board_is_a_picture_with_the_scores_of_the_table() -> None:
    listed = [*records(), *records("b:mini", checkpoint="ff")]
    [table] = tables(frame(listed))
    texts = [text.get_text() for text in board_picture.draw_board(table).axes[0].texts]
    assert texts.count("50.0") == 2 and "40–60" in texts and "a:mini" in texts and "L∞ 4/255" in texts
    files = draw(listed, kinds=("board",))
    assert list(files) == ["board-thermal-d-seed0-n100.png"] and files == draw(listed[::-1], kinds=("board",))


def test_every_fusion_of_a_suite_has_its_own_picture() -> None:
    """Their tables differ in the task alone."""
    listed = [replace(record, task=f"scenes:{fusion}") for fusion in ("sum", "max") for record in records()]
    names = [f"board-thermal-d-seed0-n100-scenes-{fusion}.png" for fusion in ("max", "sum")]
    assert sorted(draw(listed, kinds=("board",))) == names


def test_a_long_name_and_long_heads_are_readable_on_a_picture() -> None:
    name = "hf:openai/clip-vit-large-patch14-336"
    gone = [Missing((sensor,)) for sensor in ("image", "thermal")]
    more = [replace(made(name, "clean", np.arange(100) < 60), perturbation=one, key=f"{one}") for one in gone]
    wide = [made(name, f"pgd linf {k}/255", np.arange(100) < 40) for k in (1, 2)]
    [table] = tables(frame([*records(name), *more, *wide]))
    figure = board_picture.draw_board(table)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.replace("\n", "").startswith(name) for text in texts), texts
    assert "…" not in "".join(texts) and {"image", "thermal"} <= set(texts), texts


def test_a_legend_of_long_names_leaves_room_for_the_figure() -> None:
    names = [f"hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K-{k}" for k in range(8)]
    for name in names:
        assert plots._fit_legend([name], 2.6, 1)[1] < plots._fit_legend(["a:mini"], 2.6, 1)[1] == 8
    listed = [record for name in names for record in records(name)]
    picture = Image.open(BytesIO(draw(listed, kinds=("scatter",))["scatter.png"]))
    assert picture.height / 300 > 2.2 + 8 * 0.18  # a line of the legend for each, below the panel


def test_a_wide_board_keeps_clean_and_the_worst_cases() -> None:
    more = [made("a:mini", f"pgd linf {k}/255", np.arange(100) < 60) for k in range(1, 8)]
    [table] = tables(frame([*(made("a:mini", n, np.arange(100) < k) for n, k in COLUMNS.items()), *more]))
    assert board_picture.choose_columns(table) == list(COLUMNS)
