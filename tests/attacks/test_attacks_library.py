"""The libraries' attacks on any box: equal to the library's own results, without side effects; fields and suites."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from rlbench.attacks import autoattack_reference
from rlbench.attacks.search.library_box import UnitBox, picture
from rlbench.core import Adversarial, Ball, Norm, Threat, registry
from rlbench.core.errors import FieldError, RLBenchError, SuiteError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.engine.attack.api import attack
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.cells.keys import protocol


def _net(features: int = 36) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(features, 24), nn.Tanh(), nn.Linear(24, 5))
    return net.requires_grad_(False).eval()


def _x(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "norm", "arguments"),
    [("BIM", "linf", {"alpha": 0.01, "steps": 5}), ("FGSM", "linf", {}), ("DeepFool", "l2", {"steps": 3})],
)
def test_without_randomness_the_result_equals_the_librarys(name: str, norm: Norm, arguments: dict[str, object]) -> None:
    net, x = _net(), _x()
    y, eps = net(x).argmax(1), 0.03 if norm == "linf" else 5.0
    own = registry.make("attack", f"torchattacks:{name}", arguments)
    x_adv = own(Meter(net, 6), x, y, Ball(norm, eps, 0.0, 1.0), ExampleStreams(0, tuple("012345")))
    net.register_parameter("device", nn.Parameter(torch.empty(0)))
    given = {} if name == "DeepFool" else {"eps": eps}
    theirs = getattr(torchattacks, name)(net, **given, **arguments)(x, y)
    torch.testing.assert_close(x_adv, theirs, atol=1e-5, rtol=0)


def test_another_box_gives_the_same_results() -> None:
    net, x = _net(), _x()
    y, streams = net(x).argmax(1), ExampleStreams(0, tuple("012345"))
    pgd = registry.make("attack", "torchattacks:PGD", {"alpha": "2/255"})
    unit = pgd(Meter(net, 6), x, y, Ball("linf", 0.05, 0.0, 1.0), streams)
    wide = pgd(Meter(lambda z: net((z + 1.3) / 2.8), 6), x * 2.8 - 1.3, y, Ball("linf", 0.14, -1.3, 1.5), streams)
    torch.testing.assert_close((wide + 1.3) / 2.8, unit, atol=1e-5, rtol=0)
    other = pgd(Meter(net, 6), x, y, Ball("linf", 0.05, 0.0, 1.0), ExampleStreams(1, streams.ids))
    assert not torch.allclose(other, unit, atol=1e-3)


def test_attacking_by_name_changes_no_global_state() -> None:
    net, x = _net(), _x()
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    found = attack(net, x, net(x).argmax(1), "torchattacks:MIFGSM", eps=0.1, steps=5)
    assert found.distance.max() <= 0.1 * (1 + 1e-6)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # type: ignore[index,union-attr]
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 8, 9), (3, 8, 9)), ((3, 4, 8, 8), (12, 8, 8)), ((1, 16000), (1, 125, 128)), ((1, 13), (1, 1, 13))],
)
def test_a_box_becomes_a_picture_and_comes_back(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert picture(shape) == expected
    x = torch.rand(2, *shape) * 2.8 - 1.3
    unit = UnitBox(lambda x, rows=None: x, x, Ball("linf", 0.14, -1.3, 1.5))  # type: ignore[arg-type]
    u = unit.inward(x)
    assert u.shape[1:] == expected and u.min() >= 0 and u.max() <= 1
    torch.testing.assert_close(unit.outward(u), x)
    assert unit.eps == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("PGD", {"step": 3}, "attack 'torchattacks:PGD' has no field 'step'; did you mean 'steps'"),
        ("PGD", {"eps": 0.1}, "no field 'eps'; did you mean"),
        ("PGD", {"steps": 2.5}, "attack 'torchattacks:PGD': steps is 2.5; it must be int, such as the default 10"),
        ("PGD", {"random_start": 1}, "random_start is 1; it must be bool"),
        ("PGD", {"alpha": "x"}, "alpha is 'x'; it must be a fraction or number"),
        ("FGSM", {"steps": 3}, "no field 'steps'; allowed: none"),
    ],
)
def test_wrong_arguments_are_named(name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        registry.make("attack", f"torchattacks:{name}", fields)


SUITE = """suite: s
version: 1
summary: A test.
modality: image
task: {{name: blobs}}
perturbations:
  - clean
  - {{{}}}
"""


def _suite(tmp_path: Path, entry: str) -> list[Adversarial]:
    file = tmp_path / "s.yaml"
    file.write_text(SUITE.format(entry))
    return [p for p in load_suite(file).perturbations if isinstance(p, Adversarial)]


def test_a_suite_names_them_with_their_arguments(tmp_path: Path) -> None:
    (one,) = _suite(tmp_path, "attack: torchattacks:PGD, norm: linf, eps: 4/255, steps: 7, alpha: 1/255")
    assert str(one) == "torchattacks:PGD(alpha=1/255, steps=7) linf 4/255"
    assert registry.make("attack", one.attack, dict(one.fields)).passes(10) == (7, 7)
    (other,) = _suite(tmp_path, "attack: autoattack:reference, norm: l2, eps: 0.5")
    assert other.fields == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "attack: torchattacks:PDG, norm: linf, eps: 4/255",
            "did you mean torchattacks:PGD|did you mean 'torchattacks:PGD",
        ),
        ("attack: torchattacks:PGD, norm: linf, eps: 4/255, stesp: 7", "stesp: attack 'torchattacks:PGD' has no field"),
        ("attack: torchattacks:PGD, norm: l2, eps: 0.5", "norm: attack 'torchattacks:PGD' is for linf; choose another"),
    ],
)
def test_mistakes_in_a_suite_are_reported_before_anything_runs(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        _suite(tmp_path, entry)


def test_a_norm_that_the_attack_is_not_for_fails() -> None:
    net, x = _net(), _x()
    with pytest.raises(RLBenchError, match="norm is 'l2'; attack 'torchattacks:PGD' is for linf"):
        attack(net, x, net(x).argmax(1), "torchattacks:PGD", norm="l2", eps=0.5)


class _Short(autoattack_reference.AutoAttack):  # type: ignore[misc]
    """The original with 60 queries in place of 5000."""

    def __init__(self, *args: object, **fields: object) -> None:
        super().__init__(*args, **fields)
        self.square.n_queries = 60


@pytest.mark.parametrize("n_classes", [3, 4])
def test_the_reference_runs_all_four_attacks_within_its_passes(monkeypatch: pytest.MonkeyPatch, n_classes: int) -> None:
    monkeypatch.setattr(autoattack_reference, "AutoAttack", _Short)
    meter = Meter(lambda x: torch.cat([1 + 0 * x[:, 0, 0, :1], 0.01 * x[:, 0, 0, : n_classes - 1].sin()], 1), 1)
    x, reference = _x(1), registry.make("attack", "autoattack:reference")
    reference(meter, x, torch.zeros(1, dtype=torch.int64), Ball("linf", 0.01, 0.0, 1.0), ExampleStreams(0, ("a",)))
    forwards, backwards = reference.passes(n_classes)
    assert forwards - 4940 - 3 <= meter.forwards.item() <= forwards - 4940
    assert meter.backwards.item() == backwards


@pytest.mark.slow
def test_ours_breaks_what_the_reference_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoattack_reference, "AutoAttack", _Short)
    net, x, streams = _net(), _x(8), ExampleStreams(0, tuple("01234567"))
    y, ball = net(x).argmax(1), Ball("linf", 0.05, 0.0, 1.0)
    flags = []
    for name, fields in (("autoattack", {"queries": 60}), ("autoattack:reference", {})):
        meter = Meter(net, 8)
        flags.append(
            judge(meter, registry.make("attack", name, fields)(meter, x, y, ball, streams), x, y, ball).correct
        )
    assert 0 < flags[0].sum() < 8
    assert torch.equal(*flags)


@pytest.mark.parametrize(
    ("name", "module"),
    [("fab-t", "fab"), ("autoattack", "fab"), ("autoattack:reference", "autoattack_reference")],
)
def test_another_version_of_the_library_has_another_key(name: str, module: str, monkeypatch) -> None:
    suite, cell = load_suite("thermal"), Adversarial(name, Threat("linf", Fraction(4, 255)))
    before = protocol(suite, cell)
    monkeypatch.setattr(f"rlbench.attacks.{module}.installed", lambda package: f"0 of {package}")
    assert protocol(suite, cell) != before
