"""Tables of several sensors: gain and leak are counts of made flags."""

from dataclasses import replace
from fractions import Fraction

import pytest

from rlbench.core import Adversarial, Clean, Missing, Perturbation, Record, Threat
from rlbench.report.boards import sensors
from rlbench.report.boards.leaderboard import render
from rlbench.report.boards.tables import frame, tables
from rlbench.store.flags import pack

EPS = (Fraction(1, 255), Fraction(2, 255))
EACH = [Adversarial("pgd", Threat("linf", eps, (s,))) for s, eps in zip(("image", "audio"), EPS, strict=True)]
ANY, ALL = (
    Adversarial("pgd", Threat("linf", EPS[1], ("image", "audio"), reach=reach, by_sensor=EPS))
    for reach in ("any 1", "all")
)
FLAGS: dict[tuple[str, Perturbation], str] = {
    ("image", Clean()): "11110000",
    ("audio", Clean()): "11111100",
    ("image", replace(EACH[0], threat=replace(EACH[0].threat, sensors=()))): "10000000",
    ("image+audio", Clean()): "11111110",
    ("image+audio", Missing(("image",))): "11111000",
    ("image+audio", Missing(("audio",))): "11110000",
    ("image+audio", EACH[0]): "11100110",
    ("image+audio", EACH[1]): "01111110",
    ("image+audio", ANY): "01100110",
    ("image+audio", ALL): "01000000",
}


def _records(fusion: str = "sum", flags: dict = FLAGS) -> list[Record]:
    found = []
    for k, ((modality, p), text) in enumerate(flags.items()):
        correct = [bit == "1" for bit in text]
        task = f"scenes:{modality}:{fusion}" if "+" in modality else f"scenes:{modality}"
        facts = {"protocol": f"p{p}", "data": modality, "anchors": "a", "seed": 0, "checkpoint": "c", "seen": 2}
        key = f"{k:08x}{len(fusion):08x}"
        found.append(
            Record(
                key=key,
                suite="made",
                suite_version=1,
                task=task,
                modality=modality,
                model="m:mini",
                backbone="mini",
                perturbation=p,
                n=8,
                n_correct=sum(correct),
                error=None,
                forwards=0,
                backwards=0,
                flags=pack(correct),
                provenance=facts,
            )
        )
    return found


def test_rows_gains_and_leaks() -> None:
    (table,) = sensors.sensor_tables(tables(frame(_records())))
    name = "pgd linf image 1/255, audio 2/255"
    assert list(table.rows) == ["without", name]
    assert [*table.grid()[0]] == ["", "fused", "image", "audio", "any 1", "all"]
    assert {s: score.share for s, score in table.alone["clean"].items()} == {"image": 0.5, "audio": 0.75}
    assert {s: score.share for s, score in table.alone[name].items()} == {"image": 0.125}
    assert table.leaks[name] == {"image": 2 / 8, "audio": 1 / 8}  # examples 3 and 4; example 0
    assert table.gains[name] == "-25.0 (1:3, p .625)"  # any 1 against audio alone


def test_the_board_says_which_fusion_is_the_safest_and_what_it_costs() -> None:
    cautious = dict(FLAGS) | {("image+audio", Clean()): "11110000", ("image+audio", ANY): "11110000"}
    whole = _records() + [r for r in _records("median", cautious) if "+" in r.modality]
    text = render(frame(whole), "title")
    assert "the safest fusion is sum, 50.0% on any 1, at no cost clean." in text  # of two with four examples each
    assert text.count("### made v1: image, audio; m:mini, fusion ") == 2
    safer = cautious | {("image+audio", ANY): "11111000"}
    whole = _records() + [r for r in _records("median", safer) if "+" in r.modality]
    assert "the safest fusion is median, 62.5% on any 1, 37.5 points less clean than sum." in render(frame(whole), "t")


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_board_of_one_sensor_has_no_such_part(modality) -> None:
    text = render(frame([r for r in _records() if r.modality == modality]), "title")
    assert "Sensors together" not in text
