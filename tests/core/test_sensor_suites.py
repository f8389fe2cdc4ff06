"""Suites of several sensors: what they parse to, and every mistake with its line."""

import pytest
import sensor_oracle as oracle

from rlbench.core.errors import RLBenchError, SuiteError
from rlbench.core.suite import load_suite, load_suites
from rlbench.engine import cells
from rlbench.engine.run.runner import run
from rlbench.store.perturbations import from_columns, from_mapping, simplify, to_columns, to_mapping

ATTACK = "{attack: pgd, norm: linf, eps: 0.02, sensors: %s}"


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")


def _columns(folder, *entries: str) -> list[str]:
    return [str(one) for one in load_suite(oracle.suite_file(folder, *entries)).perturbations]


def test_columns_name_their_sensors(tmp_path) -> None:
    assert _columns(
        tmp_path,
        ATTACK % "each",
        ATTACK % "any 1",
        ATTACK % "all",
        ATTACK % "[depth, image]",
        "{attack: pgd, norm: l2, eps: {image: 0.1, thermal: 0.2, depth: 0}, sensors: all}",
        "{missing: each}",
        "{missing: [image, depth], then: {attack: pgd, norm: linf, eps: 0.02, sensors: any 1}}",
        "{corruption: netd, severity: 2, sensors: thermal, then: %s}" % (ATTACK % "image"),
    ) == [
        "clean",
        "pgd linf 0.02 on image",
        "pgd linf 0.02 on thermal",
        "pgd linf 0.02 on depth",
        "pgd linf 0.02 on any 1",
        "pgd linf 0.02 on all",
        "pgd linf 0.02 on image+depth",
        "pgd l2 image 0.1, thermal 0.2 on image+thermal",
        "without image",
        "without thermal",
        "without depth",
        "without image+depth + pgd linf 0.02 on thermal",
        "netd 2 on thermal + pgd linf 0.02 on image",
    ]


def test_every_column_survives_its_record_and_its_data_frame(tmp_path) -> None:
    entries = [ATTACK % "each", ATTACK % "any 1", "worst", "{missing: [image], then: %s}" % (ATTACK % "all")]
    entries.append("{attack: pgd, norm: l2, eps: {image: 0.1, thermal: 0.2, depth: 0.3}, sensors: all}")
    entries.append("{corruption: netd, severity: 2, sensors: thermal, then: %s}" % (ATTACK % "image"))
    for one in map(simplify, load_suite(oracle.suite_file(tmp_path, *entries)).perturbations):
        assert from_mapping(to_mapping(one)) == one
        assert from_columns(to_columns(one)) == one


def test_an_attack_on_several_sensors_shares_the_chain_of_the_single_ones(tmp_path) -> None:
    file = oracle.suite_file(tmp_path, *((ATTACK % which).replace("0.02", "[0.01, 0.02]") for which in ("each", "all")))
    groups = cells.groups(load_suite(file).perturbations)
    names = [[str(attack) for attack in group.attacks] for group in groups if group.attacks]
    single = [f"pgd linf {eps} on {sensor}" for sensor in oracle.SCALES for eps in ("0.01", "0.02")]
    assert names == [[*single, "pgd linf 0.01 on all", "pgd linf 0.02 on all"]]


def test_a_worst_case_is_over_every_attack_that_its_threat_model_allows(tmp_path) -> None:
    entries = [ATTACK % "[image, depth]", (ATTACK % "image").replace("0.02", "0.03"), ATTACK % "any 1", ATTACK % "all"]
    entries.append("{attack: pgd, norm: linf, eps: {image: 0.02, thermal: 0.03}, sensors: [image, thermal]}")
    columns = load_suite(oracle.suite_file(tmp_path, *entries, "worst")).perturbations
    found = {
        str(p): [str(cell) for cell in cells.members_of(p, columns)] for p in columns if str(p).startswith("worst")
    }
    single = [f"pgd linf 0.02 on {sensor}" for sensor in oracle.SCALES]
    pair = "pgd linf 0.02 on image+depth"
    assert found["worst linf 0.02 on all"] == [pair, *single, "pgd linf 0.02 on all"]
    assert found["worst linf 0.02 on any 1"] == single
    assert found["worst linf 0.02 on image+depth"] == [pair]
    assert found["worst linf 0.03 on image"] == ["pgd linf 0.03 on image"]
    wide = "image 0.02, thermal 0.03 on image+thermal"
    assert found[f"worst linf {wide}"] == [f"pgd linf {wide}"]


def test_a_part_may_have_several_fusions_and_a_task_per_sensor(tmp_path) -> None:
    head = oracle.HEAD.replace("{name: dots}", "{image: {name: dots}, thermal: {name: dots}, depth: {name: dots}}")
    file = oracle.suite_file(tmp_path, "clean", head=head.replace("task:", "fusion: [sum, median]\ntask:"))
    assert [suite.task_name for suite in load_suites(file)] == [
        f"dots:image+thermal+depth:{f}" for f in ("sum", "median")
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (ATTACK % "radar", "sensors: no sensor named 'radar'; known: all, any 1, depth, each, image, thermal"),
        (ATTACK % "[image, audio]", "sensors: no sensor named 'audio'; known: depth, image, thermal"),
        (ATTACK % "[image, image]", "sensors: 'image' appears twice"),
        (ATTACK % "[]", "sensors: the list is empty"),
        (
            "{attack: pgd, norm: linf, eps: 0.02}",
            "perturbations: the key 'sensors' is missing: all, any 1, each, image",
        ),
        (
            "{attack: pgd, norm: linf, eps: {image: 0.1}, sensors: all}",
            "eps: it has no eps for thermal; give one for each",
        ),
        (
            "{attack: pgd, norm: linf, eps: {image: 0.1, radar: 0.2}, sensors: image}",
            "radar: no such key; allowed: image",
        ),
        ("{attack: pgd, norm: linf, eps: {image: 9}, sensors: image}", "image: eps is 9; for a box of range 1"),
        ("{attack: square, norm: linf, eps: 0.1, sensors: all}", "attack: attack 'square' moves one sensor at a time"),
        ("{attack: fmn, norm: linf, eps: 0.1, sensors: all}", "attack: attack 'fmn' moves one sensor at a time"),
        ("{attack: patch, norm: l0, eps: 3, sensors: image}", "norm: l0 is for tasks with one sensor"),
        ("{missing: [image, thermal, depth]}", "missing: all sensors are missing; leave at least one"),
        ("{missing: radar}", "missing: no sensor named 'radar'"),
        ("{missing: image, severity: 3}", "severity: no such key; allowed: missing, then"),
        ("{missing: [image], then: %s}" % (ATTACK % "[image]"), "sensors: image is missing here, and gives no input"),
        ("{corruption: netd, severity: 1, sensors: [image, thermal]}", "corruption: corruption 'netd' is for thermal"),
        ("{corruption: netd, severity: 1, sensors: any 1}", "sensors: no sensor named 'any 1'; known: all, depth"),
        ("{corruption: netd, severity: 1}", "perturbations: the key 'sensors' is missing: all, each, image"),
        ("{text: template}", "text: a suite with several sensors has no edits of texts"),
        ("{}", "perturbations: an entry is clean, worst, {attack"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, entry, said) -> None:
    path = oracle.suite_file(tmp_path, entry)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:8: {said}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[image, thermal, depth]", "[image, radar]", "4: sensors: no modality named 'radar'"),
        ("[image, thermal, depth]", "[image, image]", "4: sensors: 'image' appears twice"),
        ("[image, thermal, depth]", "image", "4: sensors: 'image' is one sensor; give two or more"),
        ("task:", "modality: image\ntask:", "5: modality: no such key"),
        ("task:", "fusion: sun\ntask:", "5: fusion: no fusion named 'sun'; did you mean 'sum'?"),
        ("[image, thermal, depth]\n", "[image, depth]\nfusion: median\n", "5: fusion: fusion 'median' needs 3 sensors"),
        ("{name: dots}", "{image: {name: dots}}", "5: task: the key 'thermal' is missing"),
        ("{name: dots}", "{name: dots, fault: count}", "5: task: image has 60 test examples and thermal has 59"),
    ],
)
def test_a_mistake_of_a_part_is_named_with_its_line(tmp_path, old, new, said) -> None:
    path = oracle.suite_file(tmp_path, "clean", head=oracle.HEAD.replace(old, new))
    with pytest.raises(SuiteError) as caught:
        load_suites(path)
    assert str(caught.value).startswith(f"{path}:{said}")


def test_a_fusion_that_needs_three_sensors_cant_lose_one(tmp_path) -> None:
    path = oracle.suite_file(tmp_path, "{missing: image}", head=oracle.HEAD.replace("task:", "fusion: median\ntask:"))
    with pytest.raises(SuiteError, match="fusion 'median' needs 3 sensors; 'without image' leaves 2; give more"):
        load_suites(path)


def test_a_suite_of_one_modality_has_no_sensors(tmp_path) -> None:
    head = oracle.HEAD.replace("sensors: [image, thermal, depth]", "modality: image")
    for entry, said in (
        (ATTACK % "image", "sensors: the suite has one sensor, image"),
        ("{missing: image}", "missing: "),
    ):
        with pytest.raises(SuiteError, match=said):
            load_suite(oracle.suite_file(tmp_path, entry, head=head))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "ids",
            "image and thermal have different examples: at place 0, 'dots/test/0/0' and 'dots/test/0/1'; "
            "the task paired-folder reads pairs of files of your own",
        ),
        ("file", "thermal/0003.png: can't read it"),
    ],
)
def test_examples_that_dont_match_are_refused(tmp_path, fault, said) -> None:
    path = oracle.suite_file(tmp_path, "clean", head=oracle.with_fault(fault))
    with pytest.raises(RLBenchError) as caught:
        run(str(path), "sensor_oracle:linear_sensors", out=tmp_path / "out", workers=1)
    assert str(caught.value) == said


TWO = """\
suite: joint
version: 1
summary: Two and three sensors.
examples: 20
parts:
  - {sensors: [image, thermal], task: {name: dots}, perturbations: [clean]}
  - {sensors: [image, thermal, depth], task: {name: dots}, perturbations: [clean]}
"""


def test_a_sensor_that_the_encoder_lacks_skips_its_part_and_refuses_a_run_of_nothing_else(tmp_path) -> None:
    path, seen = oracle.suite_file(tmp_path, head=TWO), []
    model = "sensor_oracle:without_depth"
    (record,) = run(str(path), model, out=tmp_path / "out", workers=1)
    assert record.modality == "image+thermal" and not seen
    with pytest.raises(RLBenchError, match=f"{model} has no depth; it has image, thermal"):
        run(f"{path}:image+thermal+depth", model, out=tmp_path / "out", workers=1)
