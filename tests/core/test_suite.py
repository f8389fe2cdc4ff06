"""Suites: the bundled ones, the order of their columns, and every mistake with its line."""

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from rlbench.core import Adversarial, Threat, Worst
from rlbench.core.errors import SuiteError, UnknownName
from rlbench.core.suite import load_suite, load_suites, suites

GOOD = """\
suite: mine
version: 2
summary: A test.
modality: image
task: {name: blobs}
examples: 7
seed: 3
perturbations:
  - {attack: pgd, norm: linf, eps: [8/255, 2/255]}
  - {attack: [fgsm, pgd], norm: l2, eps: 0.5}
  - worst
  - {corruption: [fog, snow], severity: [1, 5]}
  - clean
"""
BUNDLED = ["audio", "image", "thermal", "video"]


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def _columns(path: Path | str) -> list[str]:
    return [str(one) for one in load_suite(path).perturbations]


def test_columns_in_their_order_with_clean_first(tmp_path) -> None:
    suite = load_suite(_file(tmp_path, GOOD))
    assert (suite.name, suite.version, suite.examples, suite.seed, suite.task_name) == ("mine", 2, 7, 3, "blobs")
    assert [str(one) for one in suite.perturbations] == [
        "clean",
        "pgd linf 8/255",
        "pgd linf 2/255",
        "fgsm l2 0.5",
        "pgd l2 0.5",
        "worst linf 2/255",
        "worst linf 8/255",
        "worst l2 0.5",
        "fog 1",
        "fog 5",
        "snow 1",
        "snow 5",
    ]


def test_examples_seed_and_clean_may_be_left_out(tmp_path) -> None:
    short = "\n".join(line for line in GOOD.splitlines() if not line.startswith(("examples", "seed", "  - clean")))
    suite = load_suite(_file(tmp_path, short))
    assert (suite.examples, suite.seed, str(suite.perturbations[0])) == (500, 0, "clean")


def test_a_ladder_holds_the_smaller_eps_of_the_same_attack(tmp_path) -> None:
    more = GOOD + "  - {attack: pgd, norm: linf, eps: 1/255, steps: 7}\n  - {attack: pgd, norm: linf, eps: 16/255}\n"
    ladders = {
        str(one): one.ladder
        for one in load_suite(_file(tmp_path, more)).perturbations
        if isinstance(one, Adversarial) and one.threat.norm == "linf"
    }
    n = Fraction(1, 255)
    assert ladders == {
        "pgd linf 8/255": (2 * n,),
        "pgd linf 2/255": (),
        "pgd(steps=7) linf 1/255": (),
        "pgd linf 16/255": (2 * n, 8 * n),
    }


def test_an_attack_may_have_surrogates(tmp_path) -> None:
    more = GOOD + "  - {attack: pgd, norm: linf, eps: [1/255, 4/255], steps: 7, from: [rlbind, tecoa:mini]}\n"
    found = [p for p in load_suite(_file(tmp_path, more)).perturbations if getattr(p, "surrogate", None)]
    assert [str(p) for p in found] == [
        f"pgd(steps=7) from {name} linf {eps}/255" for name in ("rlbind", "tecoa:mini") for eps in (1, 4)
    ]
    assert [p.ladder for p in found] == [(), (Fraction(1, 255),)] * 2
    with pytest.raises(SuiteError, match=r"from: 'a b' must be a model's name, such as languagebind"):
        load_suite(_file(tmp_path, more.replace("[rlbind, tecoa:mini]", "a b")))


def test_a_field_at_its_default_is_the_same_column(tmp_path) -> None:
    text = GOOD.replace("[fgsm, pgd]", "pgd, steps: 20")
    assert "pgd l2 0.5" in _columns(_file(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("suite: mine\n", "", 1, "suite: the key 'suite' is missing"),
        ("suite: mine", "suite: ../mine", 1, "suite: '../mine' must be letters"),
        ("suite: mine", "suite: 5", 1, "suite: 5 must be text"),
        ("version: 2", "version: two", 2, "version: 'two' must be a whole number, at least 1"),
        ("version: 2", "version: 2\nversion: 3", 3, "version: appears twice"),
        ("summary: A test.", "summery: A test.", 3, "summery: no such key; did you mean 'summary'?"),
        ("modality: image", "modality: imagee", 4, "modality: no modality named 'imagee'; did you mean 'image'?"),
        ("modality: image", "modality: audio", 5, "name: task 'blobs' is image; the suite's modality is audio"),
        ("name: blobs", "name: blob", 5, "name: no task named 'blob'; did you mean 'blobs'?"),
        ("{name: blobs}", "{name: blobs, size: 3}", 5, "size: task 'blobs' has no field 'size'"),
        ("{name: blobs}", "{}", 5, "task: the key 'name' is missing"),
        ("task: {name: blobs}", "task: blobs", 5, "task: 'blobs' must be a mapping"),
        ("examples: 7", "examples: 0", 6, "examples: 0 must be a whole number, at least 1"),
        ("examples: 7", "examples: true", 6, "examples: True must be a whole number"),
        ("seed: 3", "seed: -1", 7, "seed: -1 must be a whole number, at least 0"),
        ("attack: pgd,", "attack: pgdd,", 9, "attack: no attack named 'pgdd'; did you mean 'pgd'?"),
        ("[fgsm, pgd]", "[fgsm,\n      pgdd]", 11, "attack: no attack named 'pgdd'"),
        (
            "attack: pgd,",
            "attack: pgd, stepps: 3,",
            9,
            "stepps: attack 'pgd' has no field 'stepps'; did you mean 'steps'?",
        ),
        ("attack: pgd,", "attack: pgd, steps: many,", 9, "steps: attack 'pgd': steps is 'many'; it must be a whole"),
        ("attack: pgd,", "attack: pgd, steps: -1,", 9, "steps: "),
        ("attack: pgd,", "attack: pgd, steps: 3, steps: 4,", 9, "steps: appears twice"),
        ("attack: pgd, norm: linf,", "attack: pgd,", 9, "perturbations: attack 'pgd' needs the key 'norm'"),
        ("norm: linf,", "norm: l1,", 9, "norm: 'l1'; it must be one of linf, l2"),
        ("[8/255, 2/255]", "4/0", 9, "eps: '4/0'; it must be a fraction or number"),
        ("[8/255, 2/255]", "[8/255,\n      -1]", 10, "eps: -1; it must not be negative"),
        ("[8/255, 2/255]", "abc", 9, "eps: 'abc'; it must be a fraction or number"),
        ("[8/255, 2/255]", ".nan", 9, "eps: '.nan'; it must be"),
        ("[8/255, 2/255]", "yes", 9, "eps: True; it must be"),
        ("[8/255, 2/255]", "[]", 9, "eps: the list is empty"),
        ("[8/255, 2/255]", "[2/255, 4/510]", 9, "eps: 'pgd linf 2/255' appears twice"),
        ("[1, 5]", "0", 12, "severity: 0 must be a whole number, 1 to 5"),
        ("[1, 5]", "[1, 6]", 12, "severity: 6 must be a whole number, 1 to 5"),
        ("[1, 5]", "[1, 1]", 12, "severity: 'fog 1' appears twice"),
        (", severity: [1, 5]", "", 12, "perturbations: corruption ['fog', 'snow'] needs the key 'severity'"),
        ("[fog, snow]", "fogg", 12, "corruption: no corruption named 'fogg'; did you mean 'fog'?"),
        ("- worst", "- worse", 11, "perturbations: no perturbation named 'worse'; did you mean 'worst'?"),
        ("- worst", "- worst\n  - worst", 12, "perturbations: 'worst' appears twice"),
        ("- worst", "- {}", 11, "perturbations: an entry is clean, worst, {attack"),
        ("task: {name: blobs}", "task: {name: blobs", 6, "not YAML"),
        (
            "task: {name: blobs}",
            "task: {name: folder, data: ${D}/x}",
            5,
            "not YAML: expected ',' or '}', but got '{'; between { } put quotes",
        ),
        (
            "summary: A test.",
            "summary: !!python/object:os.system x",
            3,
            "the tag '!!python/object:os.system' is not allowed",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, line, said) -> None:
    assert GOOD.count(old) >= 1
    path = _file(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:{line}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file(tmp_path, text) -> None:
    with pytest.raises(SuiteError, match=r"mine.yaml:1: the file is empty"):
        load_suite(_file(tmp_path, text))


def test_worst_needs_an_attack_and_the_list_an_entry(tmp_path) -> None:
    head = GOOD.partition("perturbations")[0]
    with pytest.raises(SuiteError, match=r":9: perturbations: 'worst' needs at least one attack"):
        load_suite(_file(tmp_path, head + "perturbations:\n  - worst\n"))
    with pytest.raises(SuiteError, match=r":8: perturbations: the list is empty"):
        load_suite(_file(tmp_path, head + "perturbations: []\n"))


def test_a_corruption_of_another_modality(tmp_path) -> None:
    text = GOOD.replace("modality: image", "modality: audio").replace("name: blobs", "name: audio-world")
    with pytest.raises(
        SuiteError, match=r":12: corruption: corruption 'fog' is for image, video; the suite's modality is a"
    ):
        load_suite(_file(tmp_path, text))


def test_names_are_never_looked_up_in_the_working_directory(tmp_path, monkeypatch) -> None:
    _file(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./thermal", "."):
        with pytest.raises(UnknownName, match=r"no suite \(or \.yaml file\) named"):
            load_suite(name)
    with pytest.raises(UnknownName, match=r"did you mean 'mine\.yaml'"):
        load_suite("mine")
    with pytest.raises(UnknownName, match="did you mean 'thermal'"):
        load_suite("thermall")
    assert load_suite("mine.yaml").name == "mine"


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(SuiteError, match=r"none.yaml: can't read the suite file: No such file"):
        load_suite(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match=r"bytes.yaml: can't read the suite file"):
        load_suite(tmp_path / "bytes.yaml")


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from rlbench.core.suite import suites; print(*(s.name for s in suites()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*BUNDLED, *(f"{name}-unseen" for name in BUNDLED), "smoke", "False"} <= set(done.stdout.split())


@pytest.mark.parametrize("info", suites(), ids=lambda info: info.name)
def test_every_installed_suite_loads(info, monkeypatch) -> None:
    if "${RLBENCH_DATA}" in Path(info.path).read_text():
        data = Path(os.environ.get("RLBENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")
        if not data.is_dir():
            pytest.skip("no data packs: set RLBENCH_DATA")
        monkeypatch.setenv("RLBENCH_DATA", str(data))
    try:
        loaded = load_suites(info.name)
    except SuiteError as error:  # pairs of published data, which are compared when they are loaded
        assert "needs a copy of the data" in info.summary and re.search(
            "no data: set root|there is no folder", str(error)
        )
        return
    for suite in loaded:
        assert (suite.name, suite.version) == (info.name, info.version) and suite.modality in info.modality
        columns = [str(one) for one in suite.perturbations]
        assert columns[0] == "clean" and len(set(columns)) == len(columns)


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("unseen", ["", "-unseen"])
def test_the_default_matrix(name, unseen) -> None:
    low, middle, high = (1, 2, 4) if name == "video" else (2, 4, 8)
    l2 = {"audio": "1", "video": "0.7"}.get(name, "0.5")
    suite = load_suite(name + unseen)
    columns = {str(one) for one in suite.perturbations}
    expected = {f"pgd linf {eps}/255" for eps in (low, middle, high)}
    expected |= {f"{attack} linf {middle}/255" for attack in ("apgd-ce", "apgd-t" if unseen else "adaptive-long")} | {
        f"pgd l2 {l2}",
        "clean",
    }
    expected |= {f"worst linf {eps}/255" for eps in (low, middle, high)} | {f"worst l2 {l2}"}
    natural = columns - expected
    assert expected <= columns
    assert len(natural) == (15 * 3 if name + unseen == "image" else 0)
    assert {column[-1] for column in natural} <= {"1", "3", "5"}
    assert len(suite.task.classes) == (6 if unseen else 10)
    assert Worst(Threat("linf", Fraction(middle, 255))) in suite.perturbations


SEVERAL = GOOD.replace("task: {name: blobs}", "tasks:\n  - {name: blobs}\n  - {name: image-world, subset: unseen}")


def test_a_suite_of_several_tasks_is_a_suite_for_each(tmp_path) -> None:
    path = _file(tmp_path, SEVERAL)
    found = load_suites(path)
    assert [suite.task_name for suite in found] == ["blobs", "image-world"]
    assert len({(suite.name, suite.modality, suite.perturbations, suite.examples) for suite in found}) == 1
    for part, names in (("image", ["blobs", "image-world"]), ("blobs", ["blobs"]), ("image-world", ["image-world"])):
        assert [suite.task_name for suite in load_suites(f"{path}:{part}")] == names
    assert load_suite(f"{path}:image-world").task_name == "image-world"
    with pytest.raises(SuiteError, match=r"has several parts; choose one: .*:blobs, .*:image-world"):
        load_suite(path)
    with pytest.raises(UnknownName, match=r"no part of suite .* named 'blob'; did you mean 'blobs'"):
        load_suites(f"{path}:blob")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SEVERAL.replace("- {name: image-world, subset: unseen}", "- {name: blobs}"), "the task 'blobs' appears twice"),
        (SEVERAL.replace("tasks:", "task: {name: blobs}\ntasks:"), "task: no such key; did you mean 'tasks'?"),
        (SEVERAL.replace("- {name: blobs}\n", "- {name: blub}\n"), "no task named 'blub'; did you mean 'blobs'?"),
        (GOOD.replace("task: {name: blobs}", "tasks: []"), "the list is empty; give at least one"),
    ],
)
def test_tasks_that_are_wrong(tmp_path, text, said) -> None:
    with pytest.raises(SuiteError, match=re.escape(said)):
        load_suites(_file(tmp_path, text))
