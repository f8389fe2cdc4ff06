"""Mistakes in threat models: an eps in pixel levels, other spellings of a norm, step sizes."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from commands import MINE, Call, fails
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import rlbench
from rlbench.core import registry
from rlbench.core.errors import FieldError, RLBenchError, SuiteError
from rlbench.core.suite import load_suite
from rlbench.core.threat import check_eps, parse_eps, parse_norm

RANGE = "for a box of range 1 an linf eps lies between 0 and 1, such as 8/255"


def _suite(folder: Path, entry: str) -> str:
    file = folder / "slip.yaml"
    file.write_text(MINE.split("perturbations:")[0] + f"perturbations:\n  - clean\n  - {entry}\n")
    return str(file)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("8", f"eps: 8; {RANGE}"),
        ("[2/255, 8]", f"eps: 8; {RANGE}"),
        ("8.0", f"eps: 8; {RANGE}"),
        ("256/255", "eps: 256/255; for a box of range 1"),
        ("300", "eps: 300; for a box of range 1 an linf eps lies between 0 and 1, such as 4/255"),
        ("8%", "eps: '8%'; it must be a fraction or number such as 4/255 or 0.5"),
        (".nan", "eps: '.nan'; it must be a fraction"),
        (".inf", "eps: '.inf'; it must be a fraction"),
        ("-8/255", "eps: '-8/255'; it must not be negative"),
        ("1e9999999", "eps: '1e9999999'; it must be a fraction"),
        ("true", "eps: True; it must be a fraction"),
        ("{a: 1}", "it must be a fraction"),
    ],
)
def test_an_eps_beyond_the_box_is_refused_with_its_line(tmp_path: Path, written: str, said: str) -> None:
    file = _suite(tmp_path, f"{{attack: pgd, norm: linf, eps: {written}}}")
    with pytest.raises(SuiteError) as caught:
        load_suite(file)
    assert str(caught.value).startswith(f"{file}:10: ") and said.replace("eps: ", "") in str(caught.value)


@pytest.mark.parametrize("norm", ["Linf", "l_inf", "L-inf", "inf", ".inf", "'∞'", "L∞", "linf", "Linfinity"])
def test_spellings_of_linf(tmp_path: Path, norm: str) -> None:
    columns = load_suite(_suite(tmp_path, f"{{attack: pgd, norm: {norm}, eps: 8/255}}")).perturbations
    assert [str(column) for column in columns] == ["clean", "pgd linf 8/255"]


@pytest.mark.parametrize("norm", ["L2", "l_2", "2", "'2'", "2.0"])
def test_spellings_of_l2(tmp_path: Path, norm: str) -> None:
    columns = load_suite(_suite(tmp_path, f"{{attack: pgd, norm: {norm}, eps: 0.5}}")).perturbations
    assert [str(column) for column in columns] == ["clean", "pgd l2 0.5"]


@pytest.mark.parametrize("norm", ["l1", "1", "true", "null", "[linf]", "x", "22", "20"])
def test_any_other_norm_is_refused(tmp_path: Path, norm: str) -> None:
    with pytest.raises(SuiteError, match=r"slip\.yaml:10: norm: .*it must be one of linf, l2"):
        load_suite(_suite(tmp_path, f"{{attack: pgd, norm: {norm}, eps: 8/255}}"))


def test_an_l2_eps_is_compared_with_the_box_if_it_is_known(tmp_path: Path, call: Call) -> None:
    file = _suite(tmp_path, "{attack: pgd, norm: l2, eps: 128}")
    result = call("run", "--suite", file, "--model", "linear", "--examples", 4)
    fails(result, "slip.yaml: eps is 128; for a box of range 1 an l2 eps lies between 0 and 8, such as 128/255")
    with pytest.raises(SuiteError, match="an l2 eps lies between 0 and 1000"):
        load_suite(_suite(tmp_path, "{attack: pgd, norm: l2, eps: 1e6}"))


@given(st.integers(1, 4000), st.fractions(0, 100))
def test_an_eps_is_allowed_up_to_the_diameter_of_the_box(size: int, eps: Fraction) -> None:
    for norm, most in (("linf", 1.0), ("l2", math.sqrt(size))):
        if eps <= most:
            check_eps(eps, norm, (size,))
        else:
            with pytest.raises(FieldError, match=f"an {norm} eps lies between 0 and"):
                check_eps(eps, norm, (size,))


@given(st.fractions(0, 1, max_denominator=10**6))
def test_a_fraction_is_parsed_exactly(eps: Fraction) -> None:
    assert parse_eps(str(eps)) == parse_eps(f" {eps.numerator} / {eps.denominator} ") == eps


@pytest.mark.parametrize("value", ["1e9999999", "1e-9999999", "9" * 5000, "٣/٤", "1_0", "", None, [], float("inf")])
def test_an_unusual_eps_is_refused(value: object) -> None:
    with pytest.raises(FieldError, match="must be a fraction or number"):
        parse_eps(value)


def test_attack_reports_the_same_mistakes() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
    x = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    with pytest.raises(FieldError, match=f"eps is 8; {RANGE}"):
        rlbench.attack(net, x, y, "pgd", eps=8)
    with pytest.raises(FieldError, match=r"eps is 7; for a box of range 1 an l2 eps lies between 0 and 6\.928"):
        rlbench.attack(net, x, y, "pgd", eps=7, norm="l2")
    with pytest.raises(FieldError, match="eps is 8; for a box of range 1"):
        rlbench.attack(net, 255 * x, y, "pgd", eps=8, high=255.0)
    one, other = (rlbench.attack(net, x, y, "fgsm", eps="8/255", norm=norm) for norm in ("linf", float("inf")))
    assert torch.equal(one.x_adv, other.x_adv)


@pytest.mark.parametrize("setting", ["eps=8", "eps=1.5", "eps=-1", "eps=nan", "eps=NaN", "eps=8%", "attack_step=4"])
def test_a_recipe_reports_the_same_mistakes(call: Call, setting: str) -> None:
    fails(call("train", "tecoa", "--modality", "image", "--set", setting, "--dry-run"), "recipe")


def test_steps_are_shares_of_eps_or_of_the_box() -> None:
    assert parse_norm("L2") == "l2"
    with pytest.raises(FieldError, match="rel_step is 8; it is a share of eps"):
        registry.make("attack", "pgd", {"rel_step": 8})
    registry.make("attack", "torchattacks:PGD", {"alpha": "2/255"})
    for alpha in (2, "2", -0.1, 0):
        with pytest.raises(RLBenchError, match="alpha"):
            registry.make("attack", "torchattacks:PGD", {"alpha": alpha})
