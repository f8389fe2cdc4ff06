"""Figures: their data are those of the records, and the same records give the same files."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made import made
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards.leaderboard import freeze
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures import fonts
from rlbench.report.figures.board_picture import SMALL, _fit_name
from rlbench.report.figures.curves import PALETTE, colours, curves, headline, heats, scatters
from rlbench.report.figures.fonts import OWN, drawable
from rlbench.report.figures.plots import LEGEND, PIXELS, _panels, _save, _style, draw

EPS = {"clean": 90, "worst linf 2/255": 70, "worst linf 4/255": 50, "worst linf 8/255": 20, "worst l2 0.5": 30}
NOISE = {f"{name} {s}": 90 - 10 * s - k for k, name in enumerate(("fog", "snow_fall")) for s in range(1, 6)}


def record(model: str, perturbation: str, ones: int, suite: str) -> Record:
    return made(model, perturbation, np.arange(100) < ones, suite=suite, data=suite)


RECORDS = [
    *(record(m, p, k - d, "attacked") for m, d in (("a:mini", 0), ("b:mini", 15)) for p, k in EPS.items()),
    *(
        record(m, p, k - d, "noisy")
        for m, d in (("a:mini", 0), ("b:mini", 15))
        for p, k in {"clean": 90, **NOISE}.items()
    ),
]
CELLS = frame(RECORDS)


def test_curves_start_clean_and_climb_in_eps() -> None:
    first, second = curves(tables(CELLS)[0])
    assert (first.what, first.norm, second.norm) == ("worst", "linf", "l2")
    points = first.models["b:mini"]
    assert [x for x, _ in points] == [0, 2, 4, 8] and [s.share for _, s in points] == [0.75, 0.55, 0.35, 0.05]
    assert (points[2][1].low, points[2][1].high) == pytest.approx(wilson(35, 100))
    assert [x for x, _ in second.models["a:mini"]] == [0, 0.5]


def test_scatters_and_heat_maps() -> None:
    attacked, noisy = tables(CELLS)
    middle = headline(scatters(attacked))
    assert middle.column == "worst linf 4/255"
    assert [s.share for s in middle.models["a:mini"]] == [0.9, 0.5]
    assert scatters(tables(frame(RECORDS[:5]))[0]) == []  # one model is no comparison
    [heat] = heats(CELLS)
    assert heat.facts["suite"] == noisy.facts["suite"]
    assert heat.models["b:mini"]["snow_fall"] == pytest.approx([0.64, 0.54, 0.44, 0.34, 0.24])


def test_colours_differ_and_do_not_depend_on_the_order() -> None:
    assert colours(["b", "a"]) == colours(["a", "b", "a"]) and len(set(PALETTE)) == len(PALETTE) == 8


@pytest.mark.parametrize("format", ["png", "svg"])
def test_the_same_records_give_the_same_files(format: str) -> None:
    files = draw(RECORDS, format=format)
    assert [name.split(".")[0].split("-")[0] for name in files] == ["curves", "scatter", "corruptions"]
    assert draw(RECORDS[::-1], format=format, kinds=["curves"]).items() <= files.items()
    for data in files.values():
        if format == "png":
            assert min(Image.open(BytesIO(data)).size) > 300
        else:
            assert b"a:mini" in data and b"<dc:date>" not in data


def test_a_legend_distinguishes_namesakes_and_has_badges() -> None:
    """Two weights under one name are two models; a number in doubt is marked as in tables; names have brackets."""
    names = {"a (old) [1]:mini": {}, "b:mini": {"soundness": "unreliable"}}
    found = [replace(r, model=name, provenance={**r.provenance, **facts}) for name, facts in names.items()
             for r in RECORDS if r.model == "a:mini"]  # fmt: skip
    twins = [replace(r, model="c:mini", key=r.key[::-1], provenance={**r.provenance, "checkpoint": checkpoint})
             for checkpoint in ("1111", "2222") for r in RECORDS if r.model == "b:mini"]  # fmt: skip
    text = draw([*found, *twins], kinds=["curves"], format="svg")["curves.svg"].decode()
    for label in ("a (old) [1]:mini", "b:mini [unreliable]", "c:mini (1111)", "c:mini (2222)"):
        assert f">{label}<" in text
    assert all(colour.lower() in text for colour in PALETTE[:4])


def test_titles_of_panels_do_not_overlap() -> None:
    """Those of several sensors are longer than a panel is wide."""
    long = ("thermal", "world " * 20), ("thermal", "image+thermal+audio+video " * 4)
    panels = {f"{suite} v1: {task}, backbone mini on {task}": (lambda axes: None) for suite, task in long}
    figure = _panels(panels, {})
    FigureCanvasAgg(figure).draw()
    one, other = (axes.title.get_window_extent() for axes in figure.axes)
    assert one.x0 >= 0 and one.x1 < other.x0 and other.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1


def test_a_long_name_keeps_its_end() -> None:
    name, _ = _fit_name("x" * 120 + ":mini")
    assert name.endswith(":mini") and max(map(len, name.split("\n"))) <= SMALL


def test_forty_models_have_forty_styles() -> None:
    tone = colours(f"{k}:mini" for k in range(40))
    assert len({(_style(name, tone)["color"], _style(name, tone)["marker"]) for name in tone}) == 40


def test_many_models_leave_room_for_the_plot() -> None:
    """The legend and the heat maps have the best ones, and the figure says how many more there are."""
    many = [replace(r, model=f"m{k:02d}:mini") for k in range(LEGEND + 6) for r in RECORDS if r.model == "a:mini"]
    files = {
        name.split("-")[0]: text.decode()
        for name, text in draw(many, format="svg", kinds=["curves", "corruptions"]).items()
    }
    assert ">and 6 more<" in files["curves.svg"] and ">m23:mini<" in files["curves.svg"]
    assert ">m24:mini<" not in files["curves.svg"] and "of 24 of 30 models" in files["corruptions"]
    assert max(Image.open(BytesIO(_save(Figure(figsize=(0.2, 400)), "png"))).size) == PIXELS


def test_characters_that_matplotlibs_font_lacks_come_from_another_font(monkeypatch, caplog) -> None:
    """STIX comes with matplotlib and has U+1D81; without a font, one message names the characters."""
    figure = Figure()
    figure.suptitle("a ᶁ")
    with drawable(figure):
        assert figure.get_suptitle() == "a ᶁ" and figure._suptitle.get_fontfamily() == [OWN, "STIXGeneral"]  # type: ignore[attr-defined]
    assert not caplog.messages
    own = [one for one in font_manager.fontManager.ttflist if one.name.startswith("DejaVu Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    figure = Figure()
    figure.suptitle("猫 ᶁ 犬")
    for _ in range(2):
        fonts.find_fonts.cache_clear()
        with drawable(figure):
            figure.savefig(BytesIO())
    assert caplog.messages == ["figures: no installed font has ᶁ犬猫; install one, such as Noto Sans CJK"]
    assert fonts.count_columns("猫 a") == 4


def test_the_command_line_writes_the_figures_that_have_data(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(freeze(RECORDS[:2]))
    words = ["plot", str(file), "--out", str(tmp_path / "figures")]
    assert "nothing to draw" in CliRunner().invoke(main, words).output
    file.write_text(freeze(RECORDS[:10]))
    done = CliRunner().invoke(main, [*words, "--kind", "scatter", "--format", "svg"])
    assert done.exit_code == 0 and [path.name for path in (tmp_path / "figures").iterdir()] == ["scatter.svg"]
