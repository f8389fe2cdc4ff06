"""The command line: start-up, listings, runs and their output."""

import json
import re
import resource
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from columns import column
from commands import RUN, Call, fails
from rich.console import Console

from rlbench.cli import console
from rlbench.report.boards.scores import ModelRow, Score, Table
from rlbench.store.columns import Column, Mean

CELLS = 1 + 6 + 1 + 1 + 4

# Start-up


def measure_start(code: str) -> tuple[float, str]:
    """Returns the processor time in seconds of a Python that runs `code`, and what that printed last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [(["--help"], 8), (["--version"], 8), *((["list", kind], 40) for kind in ("suites", "models", "attacks"))],
)
def test_start_up_is_light(arguments: list[str], starts: int) -> None:
    """Counts in starts of an empty Python (25 ms on an idle core): other programs slow both down alike.

    Compares the least of at most five measurements of each.
    """
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)"
    code = f"import sys; from rlbench.cli import main\ntry: main({arguments})\nfinally: print(sorted({heavy}))"
    empty, spent = [], []
    while len(spent) < 5 and (not spent or min(spent) >= starts * min(empty)):
        empty.append(measure_start("")[0])
        seconds, printed = measure_start(code)
        assert printed.endswith("[]")
        spent.append(seconds)
    assert min(spent) < starts * min(empty)


def test_without_arguments_it_prints_help(call: Call) -> None:
    result = call()
    assert result.exit_code == 0 and "Usage: rlbench" in result.stdout and "leaderboard" in result.stdout


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "rlbench", "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"rlbench \d+\.\d+\.\d+", done.stdout.strip())


# Listings


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("suites", "thermal"),
        ("models", "linear:oracle"),
        ("attacks", "apgd-t"),
        ("corruptions", "fog"),
        ("tasks", "blobs"),
    ],
)
def test_listings(call: Call, kind: str, name: str) -> None:
    rows = json.loads(call("list", kind, "--json").stdout)
    assert name in [row["name"] for row in rows]
    assert all(row["summary"] for row in rows)
    assert name in call("list", kind).stdout


def test_models_say_where_they_come_from(call: Call) -> None:
    for row in json.loads(call("list", "models", "--json").stdout):
        assert {"backbone", "modalities", "source", "bytes", "sha256", "trained on"} <= set(row)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in row["sha256"].values())


def test_an_unknown_listing(call: Call) -> None:
    fails(call("list", "model"), "did you mean 'models'")


# Runs


def test_a_run_prints_its_plan_and_a_table_and_resumes(call: Call, mine: Path, tmp_path: Path) -> None:
    first = call(*RUN, "--suite", mine)
    assert first.exit_code == 0, first.output
    assert f"0 of {CELLS}" in first.stdout and "worst linf 4/255" in first.stdout and "rlbench-results" in first.stdout
    assert re.search(r"clean +\d+\.\d \[\d+\.\d, \d+\.\d\]", first.stdout)
    second = call(*RUN, "--suite", mine)
    assert f"{CELLS} of {CELLS}" in second.stdout
    assert first.stdout.split("mine v1")[1] == second.stdout.split("mine v1")[1]
    assert (tmp_path / "rlbench-results" / "records.jsonl").exists()


def test_json_prints_only_records(call: Call, mine: Path) -> None:
    result = call(*RUN, "--suite", mine, "--json")
    records = json.loads(result.stdout)
    assert len(records) == CELLS and {record["n"] for record in records} == {16}
    assert records[0]["perturbation"] == "clean" and f"0 of {CELLS}" in result.stderr
    quiet = call(*RUN, "--suite", mine, "--json", "--quiet")
    assert json.loads(quiet.stdout) == records and quiet.stderr == ""


def test_a_dry_run_writes_nothing(call: Call, mine: Path, tmp_path: Path) -> None:
    result = call(*RUN, "--suite", mine, "--dry-run")
    assert result.exit_code == 0 and result.stdout.count("0 of 1") == CELLS
    planned = json.loads(call(*RUN, "--suite", mine, "--dry-run", "--json").stdout)
    assert len(planned) == CELLS and {cell["done"] for cell in planned} == {0}
    assert list(tmp_path.iterdir()) == []


def test_a_failed_cell_is_shown_and_exits_1(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench.attacks import fgsm

    def breaks(self: object, classifier: object, x: torch.Tensor, *rest: object) -> torch.Tensor:
        return x + 1

    name = next(n for n, v in vars(fgsm).items() if isinstance(v, type) and v.__module__ == fgsm.__name__)
    monkeypatch.delattr(getattr(fgsm, name), "search")  # so that __call__ is used
    monkeypatch.setattr(getattr(fgsm, name), "__call__", breaks)
    result = call(*RUN, "--suite", mine)
    assert result.exit_code == 1
    assert re.search(r"fgsm linf 4/255 +failed", result.stdout)
    assert re.search(r"worst linf 4/255 +failed", result.stdout)
    assert "failed: linear:oracle, fgsm linf 2/255: " in result.stdout


def test_ctrl_c_says_how_to_resume(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench.engine.run import runner

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", interrupted)
    result = call(*RUN, "--suite", mine, "--quiet")
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench.engine.run import runner

    def buggy(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(runner, "execute", buggy)
    with pytest.raises(ZeroDivisionError):
        call(*RUN, "--suite", mine)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_tables_fit_the_terminal_and_are_complete(width: int) -> None:
    models = ("rlbind:mini", "fare:mini", "tecoa:mini", "languagebind:mini")
    names = ("clean", "apgd-ce linf 4/255", "pgd linf 8/255", "pgd l2 0.5", "worst linf 4/255")
    columns = (*(Column(column(name)) for name in names), Column(Mean(15, 3)))
    rows = tuple(ModelRow(m, 500, {c: Score(0.882, 0.851, 0.907) for c in columns}) for m in models)
    facts = {"suite": "thermal", "suite_version": 1, "modality": "thermal", "task": "thermal-world", "n": 500}
    out = Console(width=width, force_terminal=True, color_system=None, file=StringIO())
    console.scores(Table(facts, columns, rows, ""), out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("88.2") == text.count("[85.1, 90.7]") == 24
    assert all(word in text for word in (*(m.split(":")[0] for m in models), *columns))


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.progress(quiet=False) as advance:
        advance("pgd", 1, 4, "soon")
    assert capsys.readouterr().err == ""  # nothing in the first seconds
    monkeypatch.setattr(console, "EVERY", 0.0)
    with console.progress(quiet=False) as advance:
        advance("pgd", 1, 4, "soon")
    assert capsys.readouterr().err == " 25%  pgd  soon\n"
    with console.progress(quiet=True) as advance:
        advance("pgd", 1, 4, "soon")
    assert capsys.readouterr().err == ""
