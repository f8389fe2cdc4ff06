"""Tasks with several sensors: the closed form of a linear model, and identities between threat models."""

from dataclasses import replace

import pytest
import sensor_oracle as oracle
import torch

from rlbench.core import Ball, Corrupted, Span
from rlbench.core.errors import AttackError
from rlbench.core.sensors import SensorTask, joint_box
from rlbench.encoders.fused import Fused
from rlbench.engine.attack.one_sensor import OneSensor
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.block.sensors import SensorInputs
from rlbench.engine.cells.groups import canonical
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.report.boards.leaderboard import boards
from rlbench.store.keys import record_key
from rlbench.store.records import read_records

MODEL = "sensor_oracle:linear_sensors"
EPS = {"image": 0.03, "thermal": 0.05, "depth": 0.02}
SENSORS = tuple(EPS)


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")


def _flags(folder, *entries: str, batch_size: int = 64, precision: str | None = None) -> dict[str, list[bool]]:
    file, options = oracle.suite_file(folder, *entries), {"batch_size": batch_size, "precision": precision}
    return oracle.flags(run(str(file), MODEL, out=folder / f"out{batch_size}", workers=1, **options))


def _every(*flags: list[bool]) -> list[bool]:
    return [all(each) for each in zip(*flags, strict=True)]


@pytest.mark.parametrize(("norm", "attack"), [("linf", "apgd-ce, steps: 10"), ("l2", "apgd-t, steps: 10")])
def test_robust_accuracy_is_that_of_the_closed_form(tmp_path, norm, attack) -> None:
    size = 1 if norm == "linf" else 4
    eps = {sensor: size * value for sensor, value in EPS.items()}
    mixed = "{" + ", ".join(f"{sensor}: {value:g}" for sensor, value in eps.items()) + "}"
    entry = f"{{attack: {attack}, norm: {norm}, eps: [{mixed}, {size * 0.025:g}]"
    found = _flags(tmp_path, *(f"{entry}, sensors: {which}}}" for which in ("each", "any 1", "all", "[image, depth]")))
    name = f"{attack.split(',')[0]}(steps=10) {norm}"
    text = ", ".join(f"{sensor} {value:g}" for sensor, value in eps.items())
    alone = [oracle.survivors({sensor: eps[sensor]}, norm) for sensor in SENSORS]
    assert [found[f"{name} {eps[s]:g} on {s}"] for s in SENSORS] == alone
    assert found[f"{name} {text} on any 1"] == _every(*alone)
    assert found[f"{name} {text} on all"] == oracle.survivors(eps, norm)
    equal = dict.fromkeys(SENSORS, size * 0.025)
    assert found[f"{name} {size * 0.025:g} on all"] == oracle.survivors(equal, norm)
    pair = {"image": size * 0.025, "depth": size * 0.025}
    assert found[f"{name} {size * 0.025:g} on image+depth"] == oracle.survivors(pair, norm)
    shares = [sum(one) for one in (oracle.survivors({}), *alone, oracle.survivors(equal, norm))]
    assert shares[0] > max(shares[1:]) and min(shares) > 0, "the cells must differ for the test to mean anything"


def test_missing_sensors_and_attacks_without_them(tmp_path) -> None:
    found = _flags(
        tmp_path,
        "{missing: each}",
        "{missing: [image, depth], then: {attack: apgd-ce, norm: linf, eps: 0.05, sensors: all, steps: 10}}",
    )
    for sensor in SENSORS:
        assert found[f"without {sensor}"] == oracle.survivors({}, missing=[sensor])
    attacked = oracle.survivors({"thermal": 0.05}, missing=["image", "depth"])
    assert found["without image+depth + apgd-ce(steps=10) linf 0.05 on thermal"] == attacked
    assert len({tuple(flags) for flags in found.values()}) > 3


def test_a_corruption_on_a_sensor_then_an_attack_on_another(tmp_path) -> None:
    entry = "{corruption: netd, severity: 5, sensors: thermal%s}"
    then = ", then: {attack: apgd-ce, norm: linf, eps: 0.05, sensors: image, steps: 10}"
    found = _flags(tmp_path, entry % "", entry % then)
    corrupted, both = found["netd 5 on thermal"], found["netd 5 on thermal + apgd-ce(steps=10) linf 0.05 on image"]
    assert sum(both) < sum(corrupted) and _every(both, corrupted) == both
    assert corrupted != oracle.survivors({})


def test_a_corruption_of_one_sensor_is_that_of_a_suite_of_this_sensor() -> None:
    boxes = {s: oracle.BOXES[s] for s in SENSORS}
    task = SensorTask({s: oracle.Dots(modality=s) for s in SENSORS})
    box, netd = joint_box(boxes), Corrupted("netd", 3)
    joint = SensorInputs(task, task.fingerprint(), box, 0).load_corrupted(replace(netd, sensors=("thermal",)), 0, 9)
    alone = Inputs(task.tasks["thermal"], "dots", boxes["thermal"], 0).load_corrupted(netd, 0, 9)
    assert torch.allclose(box.split(joint, "thermal"), alone, atol=1e-6)
    assert torch.allclose(box.split(joint, "image"), task.tasks["image"].load(boxes["image"], 0, 9).x, atol=1e-6)


@pytest.mark.parametrize("fusion", ["sum", "mean", "median", "majority", "trimmed", "max", "entropy"])
def test_identities_hold_for_every_fusion(tmp_path, fusion) -> None:
    """Any 1 is the minimum, all is never above a part of it, and eps 0 elsewhere is the attack on one sensor."""
    entry = "{attack: pgd, steps: 4, norm: linf, eps: [0.01, 0.03], sensors: %s}"
    head = oracle.HEAD.replace("task:", f"fusion: {fusion}\ntask:")
    entries = [entry % which for which in ("each", "any 1", "all")]
    found = oracle.flags(
        run(str(oracle.suite_file(tmp_path, *entries, head=head)), MODEL, out=tmp_path / "o", workers=1)
    )
    for eps in ("0.01", "0.03"):
        single = [found[f"pgd(steps=4) linf {eps} on {sensor}"] for sensor in SENSORS]
        assert found[f"pgd(steps=4) linf {eps} on any 1"] == _every(*single)
        everywhere = found[f"pgd(steps=4) linf {eps} on all"]
        assert _every(everywhere, *single) == everywhere
    smaller, larger = (found[f"pgd(steps=4) linf {eps} on all"] for eps in ("0.01", "0.03"))
    assert _every(smaller, larger) == larger


def test_attacks_outside_the_pool_get_the_input_of_one_sensor(tmp_path) -> None:
    found = _flags(
        tmp_path,
        "{attack: square, norm: linf, eps: 0.05, queries: 60, sensors: each}",
        "{attack: rays, norm: linf, eps: 0.05, queries: 100, sensors: any 1}",
        "{attack: fmn, norm: linf, eps: 0.05, sensors: image}",
    )
    assert found["fmn linf 0.05 on image"] == oracle.survivors({"image": 0.05})
    for sensor in SENSORS:
        square = found[f"square(queries=60) linf 0.05 on {sensor}"]
        assert _every(square, oracle.survivors({sensor: 0.05})) == oracle.survivors({sensor: 0.05})
        assert sum(square) < sum(oracle.survivors({}))


class Crashing:
    def __call__(self, *arguments: object) -> None:
        raise ArithmeticError("planned")


def test_a_crash_on_one_sensor_names_the_attack_itself() -> None:
    ball = Ball("linf", 0.1, 0.0, 1.0, (Span("image", 0, 2, 0.1, (1, 1, 2)), Span("audio", 2, 4, 0.0, (2,))))
    x, y = torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(AttackError, match=r"^Crashing crashed: ArithmeticError: planned"):
        OneSensor(Crashing())(None, x, y, ball, None)


def test_the_encoders_of_sensors_at_rest_run_once(tmp_path, monkeypatch) -> None:
    rows, classify = dict.fromkeys(SENSORS, 0), Fused.classify

    def count(self, x, sensor):
        rows[sensor] += len(x)
        return classify(self, x, sensor)

    monkeypatch.setattr(Fused, "classify", count)
    _flags(tmp_path, "{attack: apgd-ce, norm: l2, eps: 0.05, steps: 30, sensors: image}")
    assert rows["thermal"] == rows["depth"] < rows["image"] / 3


def test_cells_of_suites_with_one_modality_keep_their_keys(tmp_path) -> None:
    """The keys of frozen records, which were made before there were several sensors."""
    frozen = read_records([next(board.records for board in boards() if board.name == "ci")])
    (model,) = {record.model for record in frozen}
    (pair,) = plan("ci", model, store=tmp_path / "out").pairs
    assert {record_key(pair.keys[canonical(p)], pair.n) for p in pair.suite.perturbations} == {r.key for r in frozen}


def test_eps_0_on_all_but_one_is_the_attack_on_that_one(tmp_path) -> None:
    entry = "{attack: pgd, norm: linf, eps: %s, sensors: %s, steps: 4}"
    one = _flags(tmp_path, entry % ("0.03", "thermal"))
    other = _flags(tmp_path, entry % ("{image: 0, thermal: 0.03, depth: 0}", "all"))
    assert one == other and "pgd(steps=4) linf 0.03 on thermal" in one


def test_flags_do_not_depend_on_the_batch_size(tmp_path) -> None:
    entries = [f"{{attack: apgd-ce, steps: 8, norm: l2, eps: 0.1, sensors: {which}}}" for which in ("any 1", "all")]
    assert _flags(tmp_path, *entries, batch_size=64) == _flags(tmp_path, *entries, batch_size=13)


def test_a_search_in_low_precision_breaks_no_fewer(tmp_path) -> None:
    attacks = [f"{{attack: pgd, steps: 5, norm: linf, eps: 4/255, sensors: {which}}}" for which in ("[image]", "all")]
    exact = list(_flags(tmp_path, *attacks).items())
    low = list(_flags(tmp_path, *attacks, precision="bf16").items())
    assert [name for name, _ in low] == [name.replace("4/255", "4/255 bf16") for name, _ in exact]
    for (_, whole), (_, other) in zip(exact, low, strict=True):
        assert sum(other) <= sum(whole)
