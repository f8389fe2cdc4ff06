"""The command line as a stranger meets it: start-up, listings, results, and one clear line for every mistake."""

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from rlbench import console
from rlbench.cli import main
from rlbench.tables import Row, Score, Table

MINE = """suite: mine
version: 1
summary: Blobs.
modality: image
task: {name: blobs}
examples: 96
seed: 0
perturbations:
  - clean
  - {attack: [fgsm, pgd], norm: linf, eps: [2/255, 4/255, 8/255]}
  - {attack: apgd-t, norm: linf, eps: 4/255}
  - {attack: pgd, norm: l2, eps: 0.1}
  - worst
"""
CELLS = 1 + 6 + 1 + 1 + 4
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in an empty folder; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="rlbench")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of blobs, which take no time, with four kinds of cells."""
    file = tmp_path_factory.mktemp("suites") / "mine.yaml"
    file.write_text(MINE)
    return file


def fails(result: Result, *words: str, untouched: Path | None = None) -> None:
    """Exit 2, one line on stderr that holds the words, nothing on stdout, no store."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("rlbench: "), result.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert result.stdout == ""
    assert untouched is None or not untouched.exists()


# Start-up


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [(["--help"], 0.5), (["--version"], 0.5), *((["list", kind], 1.0) for kind in ("suites", "models", "attacks"))],
)
def test_start_up_is_light(arguments: list[str], seconds: float) -> None:
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)"
    code = f"import sys; from rlbench.cli import main\ntry: main({arguments})\nfinally: print(sorted({heavy}))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")
    # Processor time, since a busy machine is not the program's fault.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < seconds


def test_alone_it_prints_its_help(call: Call) -> None:
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

RUN = ("run", "--model", "linear", "--workers", 1, "--examples", 16)


def test_a_run_prints_its_plan_and_a_table_and_continues(call: Call, mine: Path, tmp_path: Path) -> None:
    first = call(*RUN, "--suite", mine)
    assert first.exit_code == 0, first.output
    assert f"0 of {CELLS}" in first.stdout and "worst linf 4/255" in first.stdout and "rlbench-results" in first.stdout
    assert re.search(r"clean +\d+\.\d \[\d+\.\d, \d+\.\d\]", first.stdout)
    second = call(*RUN, "--suite", mine)
    assert f"{CELLS} of {CELLS}" in second.stdout
    assert first.stdout.split("mine v1")[1] == second.stdout.split("mine v1")[1]
    assert (tmp_path / "rlbench-results" / "records.jsonl").exists()


def test_json_is_the_records_alone(call: Call, mine: Path) -> None:
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
    monkeypatch.delattr(getattr(fgsm, name), "search")  # so that it is called
    monkeypatch.setattr(getattr(fgsm, name), "__call__", breaks)
    result = call(*RUN, "--suite", mine)
    assert result.exit_code == 1
    assert re.search(r"fgsm linf 4/255 +failed", result.stdout)
    assert re.search(r"worst linf 4/255 +failed", result.stdout)
    assert "failed: linear:oracle, fgsm linf 2/255: " in result.stdout


def test_ctrl_c_says_how_to_continue(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench import runner

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", interrupted)
    result = call(*RUN, "--suite", mine, "--quiet")
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench import runner

    def buggy(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(runner, "execute", buggy)
    with pytest.raises(ZeroDivisionError):
        call(*RUN, "--suite", mine)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_tables_fit_the_terminal_and_lose_nothing(width: int) -> None:
    models = ("rlbind:mini", "fare:mini", "tecoa:mini", "languagebind:mini")
    columns = ("clean", "apgd-ce linf 4/255", "pgd linf 8/255", "pgd l2 0.5", "worst linf 4/255", "15 corruptions at 3")
    rows = tuple(Row(m, 500, {c: Score(0.882, 0.851, 0.907) for c in columns}) for m in models)
    facts = {"suite": "thermal", "suite_version": 1, "modality": "thermal", "backbone": "mini", "task": "thermal-world"}
    out = Console(width=width, force_terminal=True, color_system=None, file=StringIO())
    console.scores(Table(facts, columns, rows, ""), out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("88.2") == text.count("[85.1, 90.7]") == 24
    assert all(word in text for word in (*(m.split(":")[0] for m in models), *columns))


def test_progress_is_plain_lines_where_there_is_no_terminal(
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


# Mistakes in names and suites


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "smok", "--model", "linear"], ["no suite", "'smok'", "did you mean 'smoke'"]),
        (["--suite", "smoke", "--model", "liner"], ["no model named 'liner'", "did you mean 'linear"]),
        (["--suite", "nowhere.yaml", "--model", "linear"], ["nowhere.yaml"]),
        (["--suite", "smoke", "--model", "runs/none"], ["runs/none", "card.yaml"]),
        (["--suite", "thermal", "--model", "linear"], ["linear", "no thermal", "image"]),
        (["--suite", "smoke", "--model", "linear", "--device", "tpu"], ["'tpu'", "auto, cpu or cuda"]),
    ],
)
def test_mistaken_names(call: Call, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    fails(call("run", *arguments), *words, untouched=tmp_path / "rlbench-results")


CHANGES = [
    ("attack: [fgsm, pgd]", "attack: [fgsm, pdg]", ["'pdg'", "did you mean 'pgd'"]),
    ("attack: pgd, norm: l2", "attack: pgd, step: 3, norm: l2", ["'step'", "did you mean 'steps'"]),
    ("attack: pgd, norm: l2", "attack: pgd, steps: 0, norm: l2", ["steps"]),
    ("attack: pgd, norm: l2", "attack: pgd, norm: l3", ["'l3'", "l2"]),
    ("eps: 4/255", "eps: 4/0", ["'4/0'", "4/255"]),
    ("eps: 4/255", "eps: -1", ["-1", "negative"]),
    ("eps: 4/255", "eps: abc", ["'abc'", "4/255"]),
    ("- clean", "- {corruption: fog, severity: 0}", ["0", "1", "5"]),
    ("- clean", "- {corruption: fog, severity: 6}", ["6", "1", "5"]),
    ("- clean", "- {corruption: fogg, severity: 3}", ["'fogg'", "did you mean 'fog'"]),
    ("modality: image", "modality: imag", ["'imag'", "did you mean 'image'"]),
    ("examples: 96", "exmaples: 96", ["exmaples", "did you mean 'examples'"]),
    ("examples: 96", "examples: 0", ["examples", "0"]),
    ("task: {name: blobs}", "task: {name: blob}", ["'blob'", "did you mean 'blobs'"]),
    ("task: {name: blobs}", "task: {name: blobs, colour: red}", ["'colour'"]),
    ("version: 1", "", ["'version'", "missing"]),
    ("suite: mine", "suite: [", ["mine.yaml"]),
]


@pytest.mark.parametrize(("old", "new", "words"), CHANGES, ids=[new or "a missing key" for _, new, _ in CHANGES])
def test_mistakes_in_a_suite_name_file_and_line(
    call: Call, tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in MINE
    (tmp_path / "mine.yaml").write_text(MINE.replace(old, new, 1))
    result = call("run", "--suite", "mine.yaml", "--model", "linear")
    fails(result, *words, untouched=tmp_path / "rlbench-results")
    assert re.search(r"mine\.yaml:\d+", result.stderr), result.stderr


@pytest.mark.parametrize("out", ["file", "file/store", "/proc/store"])
def test_a_store_that_can_not_be_written(call: Call, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    fails(call("run", "--suite", "smoke", "--model", "linear", "--quiet", "--out", out), out, "--out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", [["--examples", "0"], ["--batch-size", "x"], ["--workers", "-1"], ["--sute", "a"]])
def test_mistaken_options_exit_2(call: Call, option: list[str]) -> None:
    result = call("run", "--suite", "smoke", "--model", "linear", *option)
    assert result.exit_code == 2 and option[0] in result.stderr and "Traceback" not in result.stderr


# Training

MISTAKEN = [
    (["languagebnd"], ["did you mean 'languagebind'"]),
    (["languagebind", "--modality", "thermals"], ["did you mean 'thermal'"]),
    (["languagebind", "--set", "epoch=1"], ["'epoch'", "did you mean 'epochs'"]),
    (["languagebind", "--set", "epochs=many"], ["epochs", "'many'"]),
    (["languagebind", "--set", "eps=4/0"], ["eps", "4/0"]),
    (["languagebind", "--set", "eps=4"], ["eps is 4", "such as 4/255"]),
    (["rlbind", "--stage", "7"], ["stage 7"]),
    (["languagebind", "--suite", "thermul"], ["did you mean 'thermal'"]),
    (["languagebind", "--out", "/proc/here"], ["/proc/here"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKEN, ids=[" ".join(a) for a, _ in MISTAKEN])
def test_mistakes_in_training(call: Call, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    fails(call("train", *arguments, "--quiet"), *words)
    assert list(tmp_path.iterdir()) == []


# Data folders

PACK = """suite: pack
version: 1
summary: A folder of four pictures.
modality: thermal
task: {name: folder, data: pack, modality: thermal}
examples: 4
seed: 0
perturbations: [clean]
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A folder of four small pictures and a suite over it."""
    folder = tmp_path / "pack"
    folder.mkdir()
    rows = ["path,label,split,source"]
    for k in range(4):
        Image.new("L", (40, 32), 50 * k).save(folder / f"{k}.png")
        rows.append(f"{k}.png,{'cat' if k % 2 else 'dog'},{'train' if k > 1 else 'test'},s{k}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.csv").write_text("label,name\ncat,cat\ndog,dog\n")
    (folder / "prompts.txt").write_text("a thermal image of {a}.\n")
    (tmp_path / "pack.yaml").write_text(PACK)
    return folder


def test_a_pack_runs(call: Call, pack: Path, trained: Path) -> None:
    result = call("run", "--suite", "pack.yaml", "--model", trained, "--json", "--quiet")
    assert [record["n"] for record in json.loads(result.stdout)] == [2]


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a missing picture": (lambda pack: (pack / "0.png").unlink(), ["0.png", "missing"]),
    "an unreadable picture": (lambda pack: (pack / "1.png").write_bytes(b"\x89PNG nothing"), ["1.png"]),
    "a truncated picture": (lambda p: (p / "1.png").write_bytes((p / "1.png").read_bytes()[:40]), ["1.png"]),
    "a label without a class": (
        lambda pack: (pack / "classes.csv").write_text("label,name\ndog,dog\nfox,fox\n"),
        ["'cat'"],
    ),
    "an empty split": (
        lambda pack: (pack / "labels.csv").write_text("path,label,split,source\n3.png,cat,train,a\n"),
        ["labels.csv", "test"],
    ),
    "no labels": (lambda pack: (pack / "labels.csv").unlink(), ["labels.csv"]),
    "no folder": (lambda pack: shutil.rmtree(pack), ["pack"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packs(call: Call, pack: Path, trained: Path, tmp_path: Path, damage: str) -> None:
    act, words = DAMAGES[damage]
    act(pack)
    result = call("run", "--suite", "pack.yaml", "--model", trained, "--quiet")
    fails(result, *words)
    store = tmp_path / "rlbench-results"
    assert not store.exists() or not (store / "records.jsonl").exists()


def test_a_suite_that_needs_the_data_folder_says_so(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    (tmp_path / "pack.yaml").write_text(PACK.replace("data: pack", "data: '${RLBENCH_DATA}/pack'"))
    fails(call("run", "--suite", "pack.yaml", "--model", "linear"), "pack.yaml:5", "export RLBENCH_DATA")


# Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it, with random weights."""
    import hashlib

    import yaml

    from rlbench.encoders.mini import BOXES, Tower, packed

    folder = tmp_path_factory.mktemp("run")
    data = packed(Tower(BOXES["thermal"]))
    (folder / "t.safetensors").write_bytes(data)
    entry = {"file": "t.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    card = {
        "baseline": "mine",
        "summary": "x",
        "backbones": {"mini": {"family": "mini", "modalities": {"thermal": entry}}},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder


def test_a_run_folder_works_as_a_model(call: Call, trained: Path) -> None:
    assert call("run", "--suite", "thermal", "--model", trained, "--examples", 2, "--dry-run").exit_code == 0
    result = call("run", "--suite", "image", "--model", trained)
    fails(result, "no image", "thermal")


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_weights(call: Call, trained: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    file = folder / "t.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-100] if damage == "truncated" else data)
    if damage == "missing":
        file.unlink()
    result = call("run", "--suite", "thermal", "--model", folder, "--examples", 2)
    fails(result, "t.safetensors", untouched=tmp_path / "rlbench-results")


# Sheets and leaderboards


def test_show_writes_a_png(call: Call, mine: Path, tmp_path: Path) -> None:
    result = call("show", mine, "--model", "linear", "--examples", 3, "--perturbation", "pgd linf 8/255")
    assert result.exit_code == 0 and "wrote mine.png" in result.stdout
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smoke", "--perturbation", "pgd linf 4/25"], ["did you mean 'pgd linf 4/255'"]),
        (["smoke", "--perturbation", "worst linf 4/255"], ["worst linf 4/255", "choose one"]),
        (["smok"], ["did you mean 'smoke'"]),
        (["smoke", "--out", "/proc/nothing/x.png"], ["/proc/nothing"]),
    ],
)
def test_mistakes_in_show(call: Call, arguments: list[str], words: list[str]) -> None:
    fails(call("show", "--model", "linear", *arguments), *words)


def test_from_a_run_to_a_board(call: Call, mine: Path, tmp_path: Path) -> None:
    assert call(*RUN, "--suite", mine, "--quiet").exit_code == 0
    shown = call("leaderboard", "--records", "rlbench-results")
    assert shown.exit_code == 0 and "## mine v1: image, backbone oracle on blobs" in shown.stdout
    frozen = call("leaderboard", "--records", "rlbench-results", "--freeze", "mine.jsonl")
    assert frozen.exit_code == 0 and "wrote mine.jsonl" in frozen.stdout
    again = call("leaderboard", "--records", "mine.jsonl", "--out", "mine.md")
    assert again.exit_code == 0
    assert (tmp_path / "mine.md").read_text().split("\n", 1)[1] == shown.stdout.split("\n", 1)[1]
    assert "seconds" not in (tmp_path / "mine.jsonl").read_text()


def test_the_boards_of_the_checkout_are_what_their_records_make(call: Call) -> None:
    result = call("leaderboard", "--check")
    assert result.exit_code == 0, result.stderr


def test_a_stale_board_exits_1(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench import leaderboard

    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.jsonl").write_text("")
    monkeypatch.setattr(leaderboard, "files", lambda package: tmp_path)
    missing = call("leaderboard", "--check")
    assert missing.exit_code == 1 and "mine.md" in missing.stderr
    printed = call("leaderboard")  # no source tree: nothing is written beside the records
    assert printed.stdout.startswith("# Leaderboard: mine") and not (tmp_path / "mine.md").exists()
    (tmp_path / "mine.md").write_text(printed.stdout)
    assert call("leaderboard", "--check").exit_code == 0
    (tmp_path / "mine.md").write_text(printed.stdout.replace("No", "Some"))
    assert call("leaderboard", "--check").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--records", "none"], ["none"]), (["--board", "mni"], ["no board named 'mni'"])],
)
def test_mistakes_in_leaderboard(call: Call, arguments: list[str], words: list[str]) -> None:
    fails(call("leaderboard", *arguments), *words)


def test_a_line_that_is_no_record_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"key": 1}\n')
    fails(call("leaderboard", "--records", "r.jsonl"), "r.jsonl", "line 1")
