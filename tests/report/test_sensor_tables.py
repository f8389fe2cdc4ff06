"""Tables of several sensors: gain and leak are counts of made flags."""

import re
from dataclasses import replace
from fractions import Fraction
from io import StringIO

import pytest
from fused_records import ANY, DATA, EACH, EPS, FLAGS, fused_records
from rich.console import Console

from rlbench.cli.console import results
from rlbench.core import Adversarial, Clean, Composed, Corrupted, Record, Threat
from rlbench.report.boards import sensors
from rlbench.report.boards.leaderboard import freeze, render
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.curves import attacked_sensors
from rlbench.report.figures.plots import draw
from rlbench.report.site import page
from rlbench.store.flags import pack


def test_rows_gains_and_leaks() -> None:
    (table,) = sensors.sensor_tables(tables(frame(fused_records())))
    name = "pgd linf image 1/255, audio 2/255"
    assert list(table.rows) == ["without", name]
    assert [*table.grid()[0]] == ["", "fused", "image", "audio", "any 1", "all"]
    assert {s: score.share for s, score in table.alone["clean"].items()} == {"image": 0.5, "audio": 0.75}
    assert {s: score.share for s, score in table.alone[name].items()} == {"image": 0.125}
    assert table.leaks[name] == {"image": 2 / 8, "audio": 1 / 8}  # examples 3 and 4; example 0
    assert table.gains[name] == "-25.0 (1:3, p .625)"  # any 1 against audio alone


def test_a_sensor_alone_has_the_inputs_of_the_fused_task() -> None:
    """Of two series in one store, each has its own sensors alone, a title and a summary; see also another task."""
    other = {
        (m, p): "00001111" if m == "audio" else "1" * 8 if isinstance(p, Clean) else bits
        for (m, p), bits in FLAGS.items()
    }
    later = [
        replace(r, key=f"a{r.key[1:]}") for r in fused_records(flags=other, data=DATA | {"image": "i1", "audio": "a1"})
    ]
    strange = [
        replace(r, task="thermal-world", modality="audio", key=f"b{r.key[1:]}") for r in later if r.task[7:] == "image"
    ]
    strange = [replace(r, provenance=r.provenance | {"data": "t"}) for r in strange]
    for order in ([*fused_records(), *later, *strange], [*strange, *later, *fused_records()]):
        found = sensors.sensor_tables(tables(frame(order)))
        shares = {tuple(score.share for score in one.alone["clean"].values()): one for one in found}
        assert set(shares) == {(0.5, 0.75), (1.0, 0.5)}
        assert shares[0.5, 0.75].gains == {"pgd linf image 1/255, audio 2/255": "-25.0 (1:3, p .625)"}
        assert len({one.title for one in found}) == len(sensors.groups(found)) == 2
    part = [r for r in later if r.modality == "image"]  # a sensor alone of one series, of which nothing is fused
    (table,) = sensors.sensor_tables(tables(frame([*[r for r in fused_records() if r.modality != "image"], *part])))
    assert table.alone["clean"] == {}


def test_an_attack_after_a_corruption_has_no_leak() -> None:
    worn = Composed(Corrupted("fog", 3, sensors=("audio",)), EACH[0])
    (table,) = sensors.sensor_tables(tables(frame(fused_records(flags=FLAGS | {("image+audio", worn): "00000000"}))))
    (name,) = set(table.rows) - {"without", "pgd linf image 1/255, audio 2/255"}
    assert table.rows[name]["image"].share == 0 and name not in table.leaks and len(table.leaks) == 1


def test_the_board_says_which_fusion_is_the_safest_and_what_it_costs() -> None:
    cautious = dict(FLAGS) | {("image+audio", Clean()): "11110000", ("image+audio", ANY): "11110000"}
    whole = fused_records() + [r for r in fused_records("median", cautious) if "+" in r.modality]
    text = render(frame(whole), "title")
    assert (
        "the safest fusion is sum, 50.0% on any 1 (next median, 50.0%, p 1), at no cost clean." in text
    )  # of two with four examples each
    assert text.count("### made v1: image, audio; m:mini, fusion ") == 2
    safer = cautious | {("image+audio", ANY): "11111000"}
    whole = fused_records() + [r for r in fused_records("median", safer) if "+" in r.modality]
    assert (
        "the safest fusion is median, 62.5% on any 1 (next sum, 50.0%, p 1), 37.5 points less clean than sum."
        in render(frame(whole), "t")
    )


def test_fusions_with_the_same_numbers_are_not_ranked() -> None:
    whole = fused_records() + [r for r in fused_records("median") if "+" in r.modality]
    (line,) = sensors.verdicts(sensors.sensor_tables(tables(frame(whole))))
    assert line.endswith("the safest fusion is undecided: median, sum have 50.0% on any 1 and 87.5% clean.")


def test_a_failed_fusion_is_not_compared() -> None:
    others = [r for r in fused_records("median") if "+" in r.modality]
    bad = [replace(r, n_correct=None, flags=None, error="planned") if r.perturbation == ANY else r for r in others]
    assert len(sensors.verdicts(sensors.sensor_tables(tables(frame([*fused_records(), *others]))))) == 1
    assert sensors.verdicts(sensors.sensor_tables(tables(frame([*fused_records(), *bad])))) == []


def test_the_terminal_marks_fused_cells_that_are_not_sound_and_tells_suites_apart() -> None:
    doubtful = {"soundness": "warn", "soundness_failed": "H11: not above chance"}
    mine = [replace(r, provenance=r.provenance | doubtful) for r in fused_records()]
    other = [replace(r, suite="other", key=f"a{r.key[1:]}") for r in fused_records()]
    out = Console(file=StringIO(), width=400)
    results([*mine, *other], out)
    first, second = out.file.getvalue().split("sensors together, ")[1:]  # type: ignore[attr-defined]
    assert first.startswith("made v1: image, audio on scenes") and "* 87.5 [" in first and "* 75.0 [" in first
    assert second.startswith("other v1: image, audio on scenes") and "* 87.5 [" not in second
    fused = out.file.getvalue().split("made v1: image, audio; m:mini")[1]  # type: ignore[attr-defined]
    assert "* 50.0 [" in fused.split("other v1")[0]


def test_a_certificate_stands_beside_the_attack_on_any_one_sensor() -> None:
    (table,) = sensors.sensor_tables(tables(frame(fused_records(certified=3))))
    assert table.certified is not None and table.certified.share == 3 / 8
    line = next(row for row in table.grid() if row[""] == "certified")
    assert line == {"": "certified"} | dict.fromkeys(("fused", "image", "audio", "all"), "-") | {"any 1": line["any 1"]}
    assert line["any 1"].startswith("37.5 [") and sensors.summary([table])[0]["certified"] == line["any 1"]
    (without,) = sensors.sensor_tables(tables(frame(fused_records())))
    assert without.certified is None and "certified" not in sensors.summary([without])[0]
    facts = {"certified": 3, "sources": 4, "certified_low": 0.05, "certified_high": 0.9}
    (shared,) = sensors.sensor_tables(tables(frame(fused_records(**facts))))  # examples that share sources
    assert str(shared.certified) == "37.5 [5.0, 90.0]"


def test_fusions_of_two_suites_are_not_compared() -> None:
    safer = dict(FLAGS) | {("image+audio", ANY): "11111000"}
    other = [replace(r, suite="other", key=f"a{r.key[1:]}") for r in fused_records("median", safer)]
    found = sensors.sensor_tables(tables(frame([*fused_records(), *other])))
    assert sensors.verdicts(found) == [] and len(sensors.groups(found)) == 2
    assert "### other v1: image, audio on scenes, backbone mini, n = 8" in render(frame(other), "t")


SETS = ("image", "thermal", "audio", "image+thermal", "image+audio", "thermal+audio")
MANY = dict(zip(SETS, ("1110", "1011", "1111", "1010", "1101", "1111"), strict=True))


def _attacked(missing: str = "") -> list[Record]:
    """A model of three sensors, attacked in sets of one and two, with the flags of MANY."""
    of, eps = tuple(SETS[:3]), dict(zip(SETS, (*EPS, Fraction(1, 255)), strict=False))
    found = {(("+".join(of)), Clean()): "1111"}
    for some, flags in MANY.items():
        names = tuple(some.split("+"))
        own = tuple(eps[name] for name in names)
        threat = Threat("linf", max(own), names, by_sensor=own if len(set(own)) > 1 else ())
        if some != missing:
            found["+".join(of), Adversarial("pgd", threat)] = flags
    whole = Threat("linf", EPS[1], of, reach="all", by_sensor=tuple(eps[name] for name in of))
    found["+".join(of), Adversarial("pgd", whole)] = "0000"
    return [
        replace(r, n=4, n_correct=f.count("1"), flags=pack([bit == "1" for bit in f]))
        for r, f in zip(fused_records(flags={k: f + "0000" for k, f in found.items()}), found.values(), strict=True)
    ]


def test_accuracy_by_the_number_of_attacked_sensors() -> None:
    """Any j of three is the worst case over all sets of j, per example; a set that was not attacked leaves j out."""
    (spec,) = attacked_sensors(tables(frame(_attacked()))[0])
    (points,) = spec.models.values()
    assert [(j, score.share) for j, score in points] == [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.0)]
    assert spec.names == {0: "none", 1: "any 1", 2: "any 2", 3: "all 3"} and spec.unit == "attacked sensors"
    (spec,) = attacked_sensors(tables(frame(_attacked("thermal+audio")))[0])
    assert [j for j, _ in next(iter(spec.models.values()))] == [0, 1, 3]
    (spec,) = attacked_sensors(next(t for t in tables(frame(fused_records())) if t.has_sensors))
    assert [(j, score.share) for j, score in next(iter(spec.models.values()))] == [(0, 7 / 8), (1, 0.5), (2, 1 / 8)]


def test_the_figure_is_drawn_for_papers() -> None:
    found = draw(fused_records(), format="svg")
    assert set(found) == {"sensors.svg"} and all(text in found["sensors.svg"] for text in (b"any 1", b"all 2"))


def test_a_page_has_the_figure_the_summary_and_the_note_of_each_backbone(tmp_path, open_page) -> None:
    scenes = [replace(r, backbone="mini-scenes", model="m:mini-scenes") for r in fused_records(certified=3)]
    median = [
        replace(r, backbone="mini-scenes", model="m:mini-scenes") for r in fused_records("median") if "+" in r.modality
    ]
    old = [replace(r, suite="old", key=f"a{r.key[1:]}") for r in fused_records() if r.modality == "image"]
    large = [replace(r, suite="large", key=f"b{r.key[1:]}", backbone="vit-l-14") for r in old]
    (tmp_path / "r.jsonl").write_text(freeze([*scenes, *median, *old, *large]))
    (tmp_path / "index.html").write_text(page.render([tmp_path / "r.jsonl"]))
    one = open_page(tmp_path / "index.html", viewport={"width": 390, "height": 844})
    labels = one.locator("#suite option").all_inner_texts()
    assert len(labels) == 6 and {"made · sum · mini-scenes", "made · median · mini-scenes"} < set(labels)
    for place in map(str, range(6)):
        one.select_option("#suite", value=place)
        note, title = one.locator("#mini"), one.locator("#board-title").inner_text()
        backbone = {"made": "mini-scenes", "old": "mini", "large": ""}[title.split()[0]]
        assert note.is_visible() == bool(backbone)
        assert note.inner_text().startswith(f"Backbone {backbone} is a model organism" if backbone else "")
        assert one.locator("#attacked").is_visible() == ("image+audio" in title)
        assert one.evaluate("document.documentElement.scrollWidth") <= 390
    one.select_option("#suite", label="made · sum · mini-scenes")
    assert one.locator("#attacked polyline").count() == 1
    texts = one.locator("#attacked svg text").all_text_contents()
    assert {"none", "any 1", "all 2", "attacked sensors"} <= set(texts)
    section = one.locator("#together").inner_text()
    assert "the safest fusion is" in section and re.search(r"37\.5\s+\[", section)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_board_of_one_sensor_has_no_such_part(modality) -> None:
    text = render(frame([r for r in fused_records() if r.modality == modality]), "title")
    assert "Sensors together" not in text
