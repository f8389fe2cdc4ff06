"""`rlbench check` end to end: known changes, formats, references, the pytest fixture and the GitHub action."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from stored import record as record_of

import rlbench
from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.gate import check
from rlbench.gate.regression import gate
from rlbench.store.lines import to_line
from rlbench.store.per_example import example_ids
from rlbench.store.records import read_records

pytest_plugins = ["pytester"]

ROOT = Path(rlbench.__file__).parents[1]
BLOBS = """suite: {name}
version: 1
summary: Blobs, which take no time.
modality: image
task: {{name: blobs}}
examples: 300
perturbations:
  - clean
  - {{attack: fgsm, norm: linf, eps: {eps}/255}}
"""
THERMAL = """suite: thermal-check
version: 1
summary: An attack, and the same attack when its loop ends early.
modality: thermal
task: {name: thermal-world, domain: sensor, subset: seen}
examples: 120
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: 8/255}
  - {attack: pgd, norm: linf, eps: 8/255, steps: 2, rel_step: 0.125}
"""
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in an empty folder; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="rlbench")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def blobs(folder: Path, *, name: str = "blobs-check", eps: int = 4) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(BLOBS.format(name=name, eps=eps))
    return file


# Known changes


@pytest.fixture(scope="module")
def thermal(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("thermal")
    (folder / "thermal-check.yaml").write_text(THERMAL)
    suite = str(folder / "thermal-check.yaml")
    return rlbench.run(suite, ["rlbind", "languagebind"], out=folder / "store", workers=1)


def of(records: list[Record], model: str, perturbation: str) -> list[Record]:
    return [r for r in records if (r.model, str(r.perturbation)) == (f"{model}:mini", perturbation)]


def test_an_attack_that_got_weaker_is_reported_as_a_gain(thermal: list[Record]) -> None:
    """PGD stopped after 2 of 20 steps with an unchanged protocol hash, as after a mistaken edit of its loop."""
    [whole] = of(thermal, "rlbind", "pgd linf 8/255")
    [early] = of(thermal, "rlbind", "pgd(rel_step=0.125, steps=2) linf 8/255")
    edited = replace(early, perturbation=whole.perturbation, provenance=whole.provenance)
    [verdict] = gate([whole], [edited]).verdicts
    assert verdict.gain and "did an attack get weaker?" in verdict.reason
    [back] = gate([edited], [whole]).verdicts
    assert back.status == "FAIL" and not back.gain


def test_a_weaker_model_fails(thermal: list[Record]) -> None:
    """The backbone without adversarial training replaces RLBind."""
    references = [r for r in thermal if r.model == "rlbind:mini"]
    swapped = [replace(r, model="rlbind:mini") for r in thermal if r.model == "languagebind:mini"]
    report = gate(references, swapped)
    assert [v.status for v in report.verdicts] == ["FAIL"] * 3 and report.exit_code == 1
    assert gate(references, references).exit_code == 0


# The command


def test_references_are_written_checked_and_updated(call: Call, tmp_path: Path) -> None:
    suite = blobs(tmp_path)
    made = call("check", "--suite", suite, "--model", "linear", "--update")
    assert made.exit_code == 0 and "blobs-check image linear:oracle clean on blobs: none -> " in made.stdout
    file = tmp_path / "leaderboards" / "records" / "blobs-check.jsonl"
    text = file.read_text()
    assert len(text.splitlines()) == 2 and "seconds" not in text

    again = call("check", "--suite", suite, "--workers", 1, "--quiet")
    assert again.exit_code == 0 and "PASS: 2 PASS" in again.stdout and "Power: with n = 300" in again.stdout
    assert not (tmp_path / "rlbench-results").exists()

    same = call("check", "--suite", suite, "--update", "--workers", 1)
    assert "nothing changed" in same.stdout and file.read_text() == text

    other = blobs(tmp_path, eps=2)
    changed = call("check", "--suite", other, "--workers", 1)
    assert changed.exit_code == 2 and "this run does not" in changed.stdout  # the column's name has its eps
    renewed = call("check", "--suite", other, "--update", "--workers", 1)
    assert "fgsm linf 4/255 on blobs: " in renewed.stdout and "-> none" in renewed.stdout
    assert call("check", "--suite", other, "--workers", 1).exit_code == 0


def test_updating_references_leaves_those_of_other_models(call: Call, tmp_path: Path) -> None:
    first = call("check", "--suite", blobs(tmp_path), "--model", "linear", "--update", "--workers", 1)
    file = tmp_path / "leaderboards" / "records" / "blobs-check.jsonl"
    others = [replace(r, model="other:mini") for r in read_records([file])]
    from rlbench.gate.check import renew_references

    text = renew_references(file, others)[0][file]
    assert first.exit_code == 0 and set(file.read_text().splitlines()) < set(text.splitlines())
    assert len(text.splitlines()) == 4


@pytest.fixture
def stored(call: Call, tmp_path: Path) -> Path:
    """A store with a run, and references that have up to twenty more correct examples per cell."""
    suite = blobs(tmp_path)
    call("run", "--suite", suite, "--model", "linear", "--out", "store", "--workers", 1)
    records = []
    for record in read_records([tmp_path / "store"]):
        bits = list(bin(int(record.flags or "", 16))[2:].zfill(4 * len(record.flags or "")))
        wrong = [i for i in range(record.n) if bits[i] == "0"][:20]
        for i in wrong:
            bits[i] = "1"
        flags = f"{int(''.join(bits), 2):0{len(record.flags or '')}x}"
        records.append(replace(record, flags=flags, n_correct=(record.n_correct or 0) + len(wrong)))
    from rlbench.gate.check import renew_references

    (tmp_path / "reference.jsonl").write_text(*renew_references(tmp_path / "reference.jsonl", records)[0].values())
    return tmp_path / "store"


def test_a_stored_run_fails_and_names_the_examples(call: Call, stored: Path) -> None:
    result = call("check", "--records", stored, "--reference", "reference.jsonl", "--suite", "blobs-check.yaml")
    assert result.exit_code == 1 and "dropped by" in result.stdout and "blobs/test/" in result.stdout
    assert example_ids_of(stored) == [f"blobs/test/{i}" for i in range(300)]
    loose = call("check", "--records", stored, "--reference", "reference.jsonl", "--margin", 20)
    assert loose.exit_code == 0


def example_ids_of(store: Path) -> list[str]:
    from rlbench.store.store import Store

    [names] = example_ids(Store(store), read_records([store])).values()
    return list(names)


def test_formats(call: Call, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("check", "--records", stored, "--reference", "reference.jsonl", "--format")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lines = call(*arguments, "github").stdout.splitlines()
    errors = [line for line in lines if line.startswith("::error title=FAIL%3A blobs-check linear%3Aoracle ")]
    assert errors and all("dropped by" in line for line in errors) and lines[-1].startswith("::error title=rlbench")
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### FAIL: ") and re.search(r"^\| FAIL +\| blobs-check", summary, re.MULTILINE)
    markdown = call(*arguments, "markdown")
    assert markdown.stdout == summary and markdown.exit_code == 1
    told = json.loads(call(*arguments, "json").stdout)
    assert told["exit_code"] == 1 and told["policy"]["margin"] == 2
    assert all(cell["lost"][0].startswith("blobs/test/") for cell in told["cells"] if cell["status"] == "FAIL")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--reference", "nowhere"), "--update --model NAME writes some"),
        (("--margin", -1), "margin is -1"),
        (("--suite", "cii"), "did you mean 'ci'"),
        (("--records", "store", "--reference", "reference.jsonl", "--model", "tecoa"), "have nothing of these"),
        (("--reference", "reference.jsonl"), "no model has references of ci"),
    ],
)
def test_mistakes_are_one_line(call: Call, stored: Path, arguments: tuple[object, ...], words: str) -> None:
    result = call("check", *arguments)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_cannot_succeed_is_refused_before_the_run(
    call: Call, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model without references, a target that can't be written, and references that can't be read."""
    monkeypatch.setattr(check, "measure", lambda *arguments, **options: pytest.fail("it ran"))
    (tmp_path / "old.jsonl").write_text("<<<<<<< HEAD\n")
    for model, options, words in (
        ("tecoa", ("--reference", "reference.jsonl"), "tecoa has no references of blobs-check"),
        ("linear", ("--update", "--reference", "reference.jsonl/x"), "is not a writable folder"),
        ("linear", ("--update", "--reference", "old.jsonl"), "old.jsonl, line 1, is not a record"),
    ):
        result = call("check", "--suite", "blobs-check.yaml", "--model", model, *options)
        assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1


def test_stored_records_lack_a_model_that_has_references(call: Call, stored: Path, tmp_path: Path) -> None:
    """As --model's default says, all models that have references are checked."""
    records = read_records([stored])
    other = [replace(record, model="other:mini") for record in records]
    (tmp_path / "both.jsonl").write_text("".join(to_line(record) + "\n" for record in [*records, *other]))
    lacking = call("check", "--records", stored, "--reference", "both.jsonl")
    assert lacking.exit_code == 2 and "MISSING" in lacking.stdout and "other:mini" in lacking.stdout
    assert call("check", "--records", stored, "--reference", "both.jsonl", "--model", "linear").exit_code == 0


# Elsewhere


def test_the_fixture_passes_and_fails_a_test(call: Call, stored: Path, pytester: pytest.Pytester) -> None:
    options = f"suite={str(stored.parent / 'blobs-check.yaml')!r}, workers=1"
    reference = str(stored.parent / "reference.jsonl")
    call("check", "--records", stored, "--update", "--reference", stored.parent / "same.jsonl")
    pytester.makepyfile(
        f"""
        def test_same(rlbench_check):
            report = rlbench_check(model="linear", reference={str(stored.parent / "same.jsonl")!r}, {options})
            assert report.exit_code == 0 and report.n == 300

        def test_dropped(rlbench_check):
            rlbench_check(model="linear", reference={reference!r}, {options})
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*FAIL blobs-check linear:oracle *it dropped by*"])


def test_pytest_starts_without_torch(tmp_path: Path) -> None:
    test = "import sys\n\ndef test(rlbench_check):\n    assert 'torch' not in sys.modules\n"
    (tmp_path / "test_light.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_light.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_actions_shell_steps_run(call: Call, stored: Path, tmp_path: Path) -> None:
    """Runs the steps as GitHub does, in a user's folder, without the installation, which takes minutes."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "robustness.yml").read_text())
    [checkout, own] = workflow["jobs"]["check"]["steps"]
    assert checkout == {"uses": "actions/checkout@v4"} and own["uses"] == "./"
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert set(own["with"]) <= set(action["inputs"])
    setup, install, check = action["runs"]["steps"]
    assert setup["uses"].startswith("actions/setup-python@") and '"$GITHUB_ACTION_PATH"' in install["run"]
    given = {"model": "linear", "suite": "blobs-check.yaml", "reference": "reference.jsonl"}
    values = {name: spec["default"] for name, spec in action["inputs"].items()} | given
    done = _bash(check, values, tmp_path)
    assert done.returncode == 1 and "::error title=FAIL" in done.stdout, done.stderr


def _bash(step: dict[str, object], inputs: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a step as GitHub does with `shell: bash`: -e and pipefail, inputs only in the environment."""
    assert step["shell"] == "bash" and "${{" not in str(step["run"])
    env = {}
    for name, text in dict(step["env"]).items():  # type: ignore[call-overload]
        env[name] = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda hit: inputs[hit[1]], text)
    env = {**os.environ, **env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", str(step["run"])]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_model_that_did_not_run_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python and in the fixture, too: one that lost the modality is skipped, and has no records at all."""
    names = ["linear:oracle", "languagebind:mini"]
    records = [record_of(suite="smoke", model=name) for name in names]
    (tmp_path / "smoke.jsonl").write_text("".join(to_line(record) + "\n" for record in records))
    monkeypatch.setattr(check, "measure", lambda suites, models, **options: (records[:1], {}))
    report = check.check(suite="smoke", reference=tmp_path)
    assert [(v.model, v.status) for v in report.verdicts][1:] == [("languagebind:mini", "MISSING")]
    assert report.exit_code == 2
    assert check.check(names[0], "smoke", reference=tmp_path).exit_code == 0
