"""Mistakes at the command line: each gives exit 2 and one line that names it, and writes nothing."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import MINE, RUN, Call, fails

# Mistakes in names and suites


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "smok", "--model", "linear"], ["no suite", "'smok'", "did you mean 'smoke'"]),
        (["--suite", "smoke", "--model", "liner"], ["no model named 'liner'", "did you mean 'linear"]),
        (["--suite", "nowhere.yaml", "--model", "linear"], ["nowhere.yaml"]),
        (["--suite", "smoke", "--model", "runs/none"], ["runs/none", "card.yaml"]),
        (["--suite", "smoke", "--model", "openai/clip"], ["openai/clip", "card.yaml", "hf:openai/clip"]),
        (["--suite", "smoke", "--model", "mine.py"], ["mine.py is a file", "mine:make"]),
        (
            ["--suite", "photos", "--model", "linear"],
            ["'photos'", "and 63 more", "rlbench list suites", "rlbench new suite"],
        ),
        (["--suite", "smoke", "--model", "linear", "--address", "auto"], ["has no address", "'ray'"]),
        (["--suite", "smoke", "--model", "linear", "--examples", "many"], ["'many' is not a whole number"]),
        (["--suite", "smoke", "--model", "linear", "--examples", "0"], ["0 must be at least 1"]),
        (["--suite", "thermal", "--model", "linear"], ["linear", "no thermal", "image"]),
        (["--suite", "smoke", "--model", "linear", "--device", "tpu"], ["'tpu'", "auto, cpu or cuda"]),
    ],
)
def test_mistaken_names(call: Call, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    fails(call("run", *arguments), *words, untouched=tmp_path / "rlbench-results")


@pytest.mark.parametrize(
    ("suite", "model"), [("smok", "linear"), ("tags.yaml", "linear"), ("smoke", "liner"), ("deep.yaml", "linear")]
)
def test_mistakes_in_names_and_suites_are_reported_before_torch_is_imported(
    tmp_path: Path, suite: str, model: str
) -> None:
    (tmp_path / "tags.yaml").write_text("suite: !!bool abc\n")
    (tmp_path / "deep.yaml").write_text(f"suite: {'[' * 5000}{']' * 5000}\n")
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom rlbench.cli import main\n"
        f"result = CliRunner().invoke(main, ['run', '--suite', {suite!r}, '--model', {model!r}])\n"
        "print(result.exit_code, 'torch' in sys.modules, result.stderr.count(chr(10)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "1"], done.stdout + done.stderr


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
def test_a_store_that_cannot_be_written(call: Call, tmp_path: Path, out: str) -> None:
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
    (["languagebind", "--set", "epochs=1", "--set", "epochs=2"], ["--set epochs is given twice"]),
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


# Arguments of any kind

TWO = ["--suite", "smoke", "--model", "linear", "--dry-run"]
ODD = [
    (["run", *TWO[:2], "--model", "~nouser/x"], ["~nouser", "no user"]),
    (["run", *TWO[:2], "--model", "a\0b"], ["an argument must be one line"]),
    (["run", *TWO[:2], "--model", "\x1b[31m"], ["an argument must be one line"]),
    (["run", *TWO[:2], "--model", "\udcff"], ["an argument must be one line"]),
    (["run", *TWO[:2], "--model", ""], ["an argument is empty"]),
    (["run", *TWO[:2], "--model", "x" * 800], ["xxx ... xxx", "too long"]),
    (["run", *TWO[:2], "--model", "x" * 100_000], ["an argument must be one line"]),
    (["run", *TWO, "--examples", "9" * 5000], ["an argument must be one line"]),
    (["run", *TWO, "--examples", "1e3"], ["'1e3'", "see rlbench run --help"]),
    (["run", *TWO, "--out", "x" * 300], ["can't", "xxx"]),
    (["run", "--suite", "smoke"], ["Missing option '--model'"]),
    (["nope"], ["No such command 'nope'"]),
    (["--nope"], ["No such option"]),
    (["leaderboard", "--records", "."], ["no .jsonl file"]),
    (["leaderboard", "--records", "/dev/zero"], ["/dev/zero", "not a file"]),
    (["verify", "/dev/zero"], ["/dev/zero", "not a file"]),
    (["campaign", "/dev/zero", "--out", "o"], ["/dev/zero", "not a file"]),
    (["train", "languagebind", "--dry-run", "--set", "eps=1e9999999"], ["eps is inf"]),
    (["train", "languagebind", "--dry-run", "--set", "lr=1e999"], ["lr"]),
    (["train", "languagebind", "--dry-run", "--set", "epochs=" + 400 * "9"], ["epochs", "whole number"]),
    (["train", "languagebind", "--dry-run", "--set", "epochs=" + 3000 * "["], ["epochs", "whole number"]),
]


@pytest.mark.parametrize(("arguments", "words"), ODD, ids=[" ".join(a)[:60] for a, _ in ODD])
def test_odd_arguments(call: Call, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    result = call(*arguments)
    fails(result, *words)
    assert len(result.stderr) < 450 and result.stderr.strip().isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["plot", "none.jsonl", "--out", "file/figures"],
        ["leaderboard", "--html", "file/page"],
        ["leaderboard", "--out", "file/board.md", "--board", "ci"],
        ["report", "linear", "--out", "file/linear.md"],
    ],
)
def test_a_target_that_cannot_be_written_is_found_before_the_records_are_read(
    call: Call, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").touch()
    fails(call(*command), "can't write", "not a writable folder")


def test_a_missing_folder_of_a_target_is_made(call: Call, tmp_path: Path) -> None:
    result = call("leaderboard", "--board", "ci", "--out", "../made/new/ci.md")
    assert result.exit_code == 0 and (tmp_path / "../made/new/ci.md").is_file()


def test_a_device_is_not_replaced_by_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to("/dev/null")
    fails(call("show", "smoke", "--model", "linear", "--out", "device"), "it is not a file")
    assert (tmp_path / "device").is_symlink()


# Unfriendly places


def run_in(folder: Path, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs rlbench in a folder, in a shell that does `before` first."""
    line = f'{before}; exec "$0" -m rlbench "$@"'
    command = ["sh", "-c", line, sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_streams_that_the_caller_closed_are_open(tmp_path: Path) -> None:
    code = (
        "import sys; from rlbench.core.processes import open_streams; open_streams(); sys.stderr.isatty()\n"
        "with open('a', 'w') as file: file.write(str((file.fileno() > 2, sys.stdin.read())))"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a").read_text() == "(True, '')"


@pytest.mark.slow
def test_a_run_needs_no_open_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    arguments = ("run", "--suite", "mine.yaml", "--model", "linear", "--examples", "8", "--workers", "1", "--out", "s")
    assert run_in(tmp_path, "exec <&- >&- 2>&-", *arguments).returncode == 0
    assert len((tmp_path / "s" / "records.jsonl").read_text().splitlines()) > 1


def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = run_in(tmp_path / "gone", "rmdir ../gone", "run", "--suite", "smoke", "--model", "linear")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlbench: the working directory does not exist any more; go to a folder that does\n"


def test_a_command_to_go_on_with_is_one_for_the_shell(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "my results; rm"
    (tmp_path / "mine.yaml").write_text(MINE.partition("perturbations:")[0] + "perturbations: [clean]\n")
    result = call(*RUN, "--suite", tmp_path / "mine.yaml", "--out", out)
    command = result.stdout.rstrip().rpartition("(")[2].removesuffix(")")
    assert shlex.split(command) == ["rlbench", "leaderboard", "--records", str(out)]


def test_a_limit_of_the_shell_is_named(tmp_path: Path) -> None:
    done = run_in(tmp_path, "ulimit -n 7", "run", "--suite", "smoke", "--model", "linear", "--workers", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "rlbench: Too many open files: a limit of this shell (ulimit -a); raise it, or use --workers 1\n"
    )


def test_a_closed_pipe_is_no_regression() -> None:
    command = [sys.executable, "-m", "rlbench", "list", "suites"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)
