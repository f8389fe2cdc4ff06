"""The page: its content, that it sends no requests, and that it works in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from columns import column
from made import key

import rlbench
from rlbench.core import Adversarial, Record, Surrogate, Threat
from rlbench.report.boards.heads import describe_columns, explain_failures
from rlbench.report.boards.leaderboard import boards, examples, freeze
from rlbench.report.site import page, start
from rlbench.report.site.thumbnails import choose_examples
from rlbench.store.columns import Column

EVIL = "</script><script>alert(1)</script>"


def record(model: str, perturbation: str, ones: int | None, suite: str, **changes: Any) -> Record:
    base = {"modality": "thermal", "n": 200, "error": None if ones is not None else f"crash {EVIL}"}
    flags = None if ones is None else np.packbits(np.arange(200) < ones).tobytes().hex()
    facts = {"protocol": perturbation, "data": suite, "anchors": "a", "seed": 0, "soundness": "sound"}
    return Record(
        key=key(suite, model, perturbation),
        suite=suite,
        suite_version=1,
        task="world",
        model=model,
        backbone="mini",
        perturbation=column(perturbation),
        n_correct=ones,
        forwards=7,
        backwards=0,
        flags=flags,
        provenance=facts,
        **{**base, **changes},
    )


MODELS = {"own:mini": 0, "near:mini": 2, "languagebind:mini": 60, "far:mini": 80, "fifth:mini": 20, "sixth:mini": 30}
NOISE = {f"{name} {s}": 170 - 15 * s for name in ("fog", "lens_defocus") for s in range(1, 6)}
WORST = {"clean": 180, "worst linf 2/255": 150, "worst linf 4/255": 120}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run with the linear oracle."""
    path = tmp_path_factory.mktemp("page") / "store"
    rlbench.run("smoke", "linear", examples=12, out=path, workers=1, device="cpu")
    return path


@pytest.fixture(scope="module")
def site(store: Path) -> Path:
    """The page of that store and of invented records, with pictures of the store's cells."""
    rows = [
        record(model, p, k - less, suite)
        for suite, columns in (("attacked", WORST), ("noisy", {"clean": 180, **NOISE}))
        for model, less in MODELS.items()
        for p, k in columns.items()
    ]
    rows[2] = record("own:mini", "worst linf 4/255", None, "attacked")
    made = store.parent / "made.jsonl"
    made.write_text(freeze(rows))
    (store.parent / "index.html").write_text(page.render([store, made], pictures=2))
    return store.parent / "index.html"


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_refers_to_no_other_file(site: Path) -> None:
    text = site.read_text()
    own = text.split('id="data">')[0]
    assert "default-src 'none'" in own
    assert not re.search(r'(src|href)\s*=(?!"(data:|#))|@import|url\(', own)
    assert EVIL not in text and text.count("<script>") == 3


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [record(m, p, k, "attacked") for m in MODELS for p, k in WORST.items()]
    for name, these in (("one", rows), ("two", rows[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(freeze([r]) for r in these))
    assert page.render([tmp_path / "one.jsonl"]) == page.render([tmp_path / "two.jsonl"])


def test_the_boards_records_make_a_page() -> None:
    """Rounds are pooled: the clean thermal cell of rlbind has the 900 examples of three rounds, as on the board."""
    found = data(page.render([board.records for board in boards() if board.name == "mini"]))
    cell = next(
        r
        for r in found["records"]
        if (r["suite"], r["model"], r["perturbation"]) == ("claim-thermal", "rlbind:mini", "clean")
    )
    assert (cell["n"], cell["n_correct"]) == (900, 852)  # 94.7 % of leaderboards/mini.md
    assert {m["family"] for m in found["macros"]} == {"claim-*", "claim-*-unseen"}


def test_pictures_are_of_examples_that_the_attack_broke_and_agree_with_the_run(site: Path, store: Path) -> None:
    pictured = [r for r in data(site.read_text())["records"] if "pictures" in r]
    assert {r["suite"] for r in pictured} == {"smoke"} and len(pictured) == 19
    for r in pictured:
        assert all(p["agrees"] and p["clean"]["correct"] for p in r["pictures"])
        assert all(image.startswith("data:image/png;base64,") for p in r["pictures"] for image in p["images"])
    frame = examples(store)
    hardest = frame[frame["perturbation"] == "pgd linf 8/255"]
    shown = next(r for r in pictured if r["perturbation"] == "pgd linf 8/255")["pictures"]
    assert [p["perturbed"]["correct"] for p in shown] == [bool(hardest["correct"].iloc[p["index"]]) for p in shown]
    clean = np.array([1, 1, 0, 1, 1, 0, 1], dtype=bool)
    assert choose_examples(clean, np.array([1, 0, 0, 1, 0, 0, 0], dtype=bool), 4) == [1, 4, 0, 3]


def test_per_example_frames_have_the_content_of_blocks(store: Path) -> None:
    """In a clean cell, correct means that prediction and label agree; a worst case has only flags."""
    frame = examples(store)
    assert frame.groupby("perturbation").size().eq(12).all()
    clean = frame[frame["perturbation"] == "clean"]
    assert ((clean["prediction"] == clean["label"]) == clean["correct"]).all() and clean["id"].is_unique
    worst = frame[frame["perturbation"] == "worst linf 8/255"].set_index("index")
    assert worst["id"].isna().all()
    members = frame[frame["perturbation"].str.match(r"(fgsm|pgd|apgd-\w+) linf")]
    assert (members.groupby("index")["correct"].all() == worst["correct"]).all()


@pytest.fixture
def visit(open_page: Callable[..., Any], site: Path) -> Callable[..., Any]:
    """Opens the page (see `open_page`)."""
    return lambda **options: open_page(site, **options)


def test_it_renders_sorts_and_chooses(visit: Callable[..., Any]) -> None:
    one, expect = visit(), pytest.importorskip("playwright.sync_api").expect
    one.select_option("#suite", label="attacked · mini")
    assert one.locator("#board-title").inner_text().startswith("attacked v1: thermal")
    assert one.locator("#grid tbody tr").count() == 6 and one.locator("#curves polyline").count() == 6
    header = one.locator("#grid thead th", has_text="clean")
    rows = one.locator("#grid tbody th")
    header.click()  # the table is drawn anew a moment later
    for end, name in ((rows.first, "far:mini"), (rows.last, "own:mini")):
        expect(end).to_have_text(name)
    header.click()
    for end, name in ((rows.first, "own:mini"), (rows.last, "far:mini")):
        expect(end).to_have_text(name)
    one.locator("#board input").fill("near")
    expect(rows).to_have_text(["near:mini"])
    one.locator("#modalities button", has_text="image").click()
    assert one.locator("#board-title").inner_text().startswith("smoke v1: image")
    assert not one.locator("#heat").is_visible()


def test_every_cell_can_be_filtered(visit: Callable[..., Any]) -> None:
    one = visit()
    assert "cells" in one.locator(".dt-info").inner_text()
    one.locator("#filters select").nth(0).select_option("noisy")
    one.locator("#filters select").nth(1).select_option("own:mini")
    assert one.locator(".dt-info").inner_text().startswith("1 to 11 of 11 cells")
    one.locator("#cells button", has_text="90.0").first.click()
    assert one.locator("#cell-title").inner_text() == "own:mini · clean"


def test_a_cell_opens_its_examples_by_keyboard(visit: Callable[..., Any]) -> None:
    one = visit()
    one.locator("#modalities button", has_text="image").click()
    one.get_by_role("button", name="linear:oracle, pgd linf 8/255").focus()
    one.keyboard.press("Enter")
    assert one.locator("#cell img").count() == 6
    assert one.locator("#cell img").first.evaluate("image => image.naturalWidth") > 0
    assert one.locator("#cell .map rect").count() == 12
    one.keyboard.press("Escape")
    assert not one.locator("#cell").is_visible()


def test_failures_and_differences_are_shown(visit: Callable[..., Any]) -> None:
    one = visit()
    one.select_option("#suite", label="attacked · mini")
    assert EVIL in one.locator("#failures").inner_text()
    one.get_by_role("button", name="own:mini, worst linf 4/255: failed").click()
    assert "crash" in one.locator("#cell").inner_text()
    one.keyboard.press("Escape")
    one.get_by_role("button", name="near:mini, clean").click()
    assert "Difference to languagebind:mini: +29.0 (58:0, p <.001" in one.locator("#cell").inner_text()


def test_a_mean_of_corruptions_opens_its_cells_and_the_heat_map(visit: Callable[..., Any]) -> None:
    one = visit()
    one.select_option("#suite", label="noisy · mini")
    assert one.locator("#heat tbody tr").count() == 2 and one.locator("#heat thead th").count() == 7
    one.locator("#heat select").select_option("own:mini")
    assert one.locator("#heat tbody td").all_inner_texts() == ["77.5", "70.0", "62.5", "55.0", "47.5"] * 2
    one.get_by_role("button", name="own:mini, 2 corruptions at 3").click()
    assert one.locator("#cell summary").all_text_contents()[:2] == ["fog 3: 62.5", "Provenance"]


def test_it_fits_a_phone_and_has_a_dark_theme(visit: Callable[..., Any]) -> None:
    one = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    for option in one.locator("#suite option").all_inner_texts():
        one.select_option("#suite", label=option)
        assert one.evaluate("document.documentElement.scrollWidth") <= 390
    paper = "getComputedStyle(document.body).backgroundColor"
    assert one.evaluate(paper) == "rgb(20, 23, 26)"
    one.locator("#theme").click()  # auto -> light
    assert one.evaluate(paper) == "rgb(251, 251, 249)"


def test_heads_are_short_and_explained(visit: Callable[..., Any]) -> None:
    one = visit()
    one.select_option("#suite", label="attacked · mini")
    head = one.locator("#grid thead th", has_text="worst").first
    assert head.locator("small").inner_text() == "L∞ 2/255"
    about = "correct under every attack, in an L∞ ball of radius 2/255 or smaller"
    assert about in str(head.get_attribute("title"))
    one.locator("#columns summary").click()  # for touch screens, which show no titles
    assert one.locator("#columns dd", has_text=about).first.is_visible()


def test_a_figure_takes_at_most_half_of_the_page(visit: Callable[..., Any]) -> None:
    one = visit(viewport={"width": 1280, "height": 900})
    one.select_option("#suite", label="smoke · oracle")  # one model: curves without a scatter plot
    box = one.locator("#curves").bounding_box()
    assert one.locator("#scatter").is_hidden() and box["width"] <= 640


def test_fields_of_attacks_are_in_a_head_only_where_they_are_needed() -> None:
    names = ("pgd(steps=3) linf 4/255", "pgd(steps=9) linf 4/255", "apgd-ce(steps=40) linf 4/255", "fog 3")
    found = describe_columns([Column(column(name)) for name in names])
    assert [head.name for head in found] == ["pgd(steps=3)", "pgd(steps=9)", "apgd-ce", "fog"]
    assert found[2].detail == "L∞ 4/255" and "apgd-ce(steps=40)" in found[2].about and found[3].detail == "severity 3"


def test_a_surrogate_stays_in_a_head() -> None:
    attack = Adversarial("pgd", Threat("linf", Fraction(4, 255)), (("steps", 3),), surrogate=Surrogate("tecoa"))
    found = describe_columns([Column(one) for one in (replace(attack, surrogate=None), attack)])
    assert [head.name for head in found] == ["pgd", "pgd from tecoa"]


def test_failed_checks_have_words() -> None:
    first, second = explain_failures("H7: 12% of gradients are zero; at 3 points; S4: lost")
    assert (first["id"], first["said"]) == ("H7", "12% of gradients are zero; at 3 points")
    assert first["asks"] == "gradients are not zero" and second["id"] == "S4" and explain_failures("") == []


def test_all_boards_have_a_start_page() -> None:
    pages = start.render_all([board for board in boards() if board.name in ("ci", "packs", "paper")])
    assert set(pages) == {"index.html", "ci.html", "packs.html", "paper.html"}
    home = pages["index.html"]
    links = re.findall(r'href="([a-z]+\.html)(?:#([\w-]+))?"', home)
    assert {page_ for page_, _ in links} == {"ci.html", "packs.html", "paper.html"}
    suites = [f"{table['suite']}-{k}" for k, table in enumerate(data(pages["packs.html"])["tables"])]
    assert [at for page_, at in links if page_ == "packs.html" and at] == suites
    assert all('href="index.html"' in text for name, text in pages.items() if name != "index.html")
    assert "rlbind:mini" in home and "29.6" in home  # the robust average of leaderboards/packs.md


def test_the_start_page_shows_several_sensors_as_the_board_does() -> None:
    [board] = [board for board in boards() if board.name == "sensors"]
    home = start.render_all([board])["index.html"]
    shown = re.findall(r'<th scope="row">([^<]+)</th>((?:<td>.*?</td>){3})', home)
    cells = {name: re.findall(r"<b>([\d.]+)</b>", cell) for name, cell in shown}
    rows = [
        line.strip("| ").split("|")
        for line in board.text().splitlines()
        if re.match(r"\| \S+:mini-scenes +\| sum ", line)
    ]
    by_model = {row[0].strip(): [row[k].split()[0] for k in (3, 6, 7)] for row in rows[:5]}
    assert len(by_model) == 5 and {name: cells[name] for name in by_model} == by_model


def test_markdown_becomes_html_without_markup_of_its_own() -> None:
    text = (
        "# title\n\n<!-- made -->\n\n## a <b>\n\n| x | y |\n|:--|--:|\n| `c` | [d](https://e.org/f) |\n\n- g\n- **h**"
    )
    assert list(start.to_html(text)) == [
        "<h2>a &lt;b&gt;</h2>",
        '<div class="scroll text"><table><thead><tr><th>x</th><th>y</th></tr></thead><tbody><tr><td><code>c</code></td>'
        '<td><a href="https://e.org/f">d</a></td></tr></tbody></table></div>',
        "<ul><li>g</li><li><b>h</b></li></ul>",
    ]
