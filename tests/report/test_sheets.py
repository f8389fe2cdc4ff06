"""Sheets: they show what a run computes, for every modality."""

from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from rlbench.core import Adversarial, Box, Clean, Composed, Corrupted, Modality, Threat, registry
from rlbench.core.errors import FieldError, UnknownName
from rlbench.core.suite import load_suite
from rlbench.core.threat import distance
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.evaluate import Result, evaluate
from rlbench.engine.cells.groups import groups
from rlbench.report.figures import sheets
from rlbench.report.figures.draw import RIGHT, WRONG, Guess, Sheet, amplification, draw
from rlbench.report.figures.sheets import choose, collect
from rlbench.store.blocks import Block

SHAPES: list[tuple[Modality, tuple[int, ...], str]] = [
    ("image", (3, 16, 16), "intensity"),
    ("thermal", (1, 16, 16), "intensity"),
    ("depth", (1, 16, 16), "intensity"),
    ("audio", (1, 16, 24), "log-mel"),
    ("audio", (1, 800), "waveform"),
    ("video", (3, 4, 16, 16), "intensity"),
]


def sheet(modality: Modality, shape: tuple[int, ...], unit: str, n: int = 3) -> Sheet:
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    names = ("a dog", "a very long name of a class that needs several lines", "cat")[:n]
    return Sheet(
        title="t",
        modality=modality,
        box=Box(shape=shape, unit=unit),
        x=x,
        x_adv=(x + 0.02).clamp(0, 1),
        labels=names,
        clean=tuple(Guess(name, True) for name in names),
        perturbed=tuple(Guess(name, False) for name in names),
    )


@pytest.mark.parametrize(("modality", "shape", "unit"), SHAPES)
def test_every_modality_draws_right_and_wrong_predictions(
    modality: Modality, shape: tuple[int, ...], unit: str
) -> None:
    picture = np.asarray(Image.open(BytesIO(draw(sheet(modality, shape, unit)))).convert("RGB")).reshape(-1, 3)
    colours = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (RIGHT, WRONG)}
    assert colours <= set(map(tuple, picture.tolist()))


def test_a_waveform_is_drawn_in_the_numbers_of_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda panel, samples, wave, **style: drawn.append(wave))
    x = torch.linspace(-0.75, 0.5, 800).reshape(1, 1, 800)
    box = Box(shape=(1, 800), low=-1.0, high=1.0, unit="waveform")
    draw(replace(sheet("audio", (1, 800), "waveform", n=1), box=box, x=x, x_adv=x + 0.25))
    for wave, (low, high) in zip(drawn, [(-0.75, 0.5), (-0.5, 0.75), (0.5, 0.5)], strict=True):
        assert (wave.min(), wave.max()) == pytest.approx((low, high))  # the difference, 0.25, is shown twice as large


def test_the_same_sheet_gives_the_same_bytes() -> None:
    assert draw(sheet("thermal", (1, 16, 16), "intensity")) == draw(sheet("thermal", (1, 16, 16), "intensity"))


@pytest.mark.parametrize(
    ("top", "factor"), [(4 / 255, 20), (8 / 255, 10), (0.5, 1), (0.25, 2), (0.1, 5), (1.0, 0.5), (0.0, 1), (1e-3, 500)]
)
def test_the_difference_is_amplified_by_a_round_factor_that_fits(top: float, factor: float) -> None:
    delta = np.array([[-top, top / 2]])
    assert amplification(delta) == pytest.approx(factor)
    assert abs(amplification(delta) * delta).max() <= 0.5 + 1e-9


def guesses(block: Result, names: list[str]) -> tuple[Guess, ...]:
    assert isinstance(block, Block)
    return tuple(Guess(names[k], bool(c)) for k, c in zip(block.prediction, block.correct, strict=True))


def test_a_tie_is_wrong_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite("smoke")
    bench = prepare(suite, "linear")
    same = replace(bench.classifier, anchors=bench.classifier.anchors[[0, 0, 2, 3]])  # two classes of one anchor
    monkeypatch.setattr(sheets, "prepare", lambda *of, **options: replace(bench, classifier=same))
    shown = collect(suite, "linear", Clean(), 12)
    assert any(guess.name == label for guess, label in zip(shown.clean, shown.labels, strict=True) if "top" in label)
    assert not any(g.correct for g, label in zip(shown.clean, shown.labels, strict=True) if "top" in label)


def test_choose() -> None:
    suite = load_suite("thermal")
    assert str(choose(suite)) == "pgd linf 4/255"
    assert str(choose(suite, "pgd l2 0.5")) == "pgd l2 0.5"
    with pytest.raises(UnknownName, match="did you mean 'pgd linf 8/255'"):
        choose(suite, "pgd linf 8/25")
    with pytest.raises(FieldError, match="choose one"):
        choose(suite, "worst linf 4/255")


LINF = (Fraction(2, 255), Fraction(4, 255), Fraction(8, 255))
ATTACKS = [
    Adversarial("fgsm", Threat("linf", LINF[2]), ladder=LINF[:2]),
    Adversarial("pgd", Threat("linf", LINF[2]), ladder=LINF[:2]),
    Adversarial("apgd-t", Threat("linf", LINF[1])),
    Adversarial("pgd", Threat("l2", Fraction(1, 10))),
]


@pytest.mark.parametrize("column", ["clean", *map(str, ATTACKS)])
def test_a_sheet_shows_what_a_run_computes(column: str) -> None:
    suite = replace(load_suite("smoke"), perturbations=(Clean(), *ATTACKS))
    one = choose(suite, column)
    bench = prepare(suite, "linear")
    [clean] = evaluate(bench, groups([Clean()]), 0, 12, None, lambda n: None)
    names = [label.name for label in suite.task.classes]
    shown = collect(suite, "linear", one, 12)
    assert shown.clean == guesses(clean, names)
    assert shown.title == f"smoke v{suite.version} · linear:oracle · {column}"  # the model's full name
    if column != "clean":
        group = next(g for g in groups(suite.perturbations) if one in g.members)
        block = evaluate(bench, [group], 0, 12, clean, lambda n: None)[group.members.index(one)]  # type: ignore[arg-type]
        assert shown.perturbed == guesses(block, names)
        assert isinstance(block, Block) and isinstance(one, Adversarial)
        moved = distance(shown.x_adv, shown.x, one.threat.norm)
        assert moved.tolist() == pytest.approx(block.distance.tolist(), abs=1e-9)  # a smaller eps broke it: no farther


def test_a_sheet_keeps_the_point_of_the_smallest_eps_that_breaks_an_example() -> None:
    suite = replace(load_suite("smoke"), perturbations=(Clean(),))
    small, large = (Adversarial("pgd", Threat("linf", LINF[k]), ladder=LINF[:k]) for k in (1, 2))
    low, high = (collect(suite, "linear", one, 12) for one in (small, large))
    broken = torch.tensor([c.correct and not p.correct for c, p in zip(low.clean, low.perturbed, strict=True)])
    assert broken.any() and (distance(high.x_adv, high.x, "linf")[broken] <= float(LINF[1]) * (1 + 1e-6)).all()


def test_a_composition_is_corrupted_then_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    darker = lambda x, severity, streams: 0.9 * x  # noqa: E731
    make = registry.make
    monkeypatch.setattr(registry, "make", lambda kind, *of: darker if kind == "corruption" else make(kind, *of))
    smoke = load_suite("smoke")
    both = Composed(Corrupted("darker", 1), Adversarial("pgd", Threat("linf", Fraction(4, 255))))
    suite = replace(smoke, perturbations=(Clean(), both))
    shown = collect(suite, "linear", choose(suite, str(both)), 12)
    bench = prepare(suite, "linear")
    plain, composed = groups(suite.perturbations)
    [clean] = evaluate(bench, [plain], 0, 12, None, lambda n: None)
    [block] = evaluate(bench, [composed], 0, 12, clean, lambda n: None)  # type: ignore[arg-type]
    names = [label.name for label in suite.task.classes]
    assert shown.perturbed == guesses(block, names)
