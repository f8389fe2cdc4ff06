"""`rlbench show`, `leaderboard` and `plot`."""

from pathlib import Path

import pytest
from commands import RUN, Call, fails


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


def test_the_boards_of_the_checkout_match_their_records(call: Call) -> None:
    result = call("leaderboard", "--check")
    assert result.exit_code == 0, result.stderr


def test_a_stale_board_exits_1(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlbench.report.boards import leaderboard

    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.jsonl").write_text("")
    monkeypatch.setattr(leaderboard, "files", lambda package: tmp_path)
    missing = call("leaderboard", "--check")
    assert missing.exit_code == 1 and "mine.md" in missing.stderr
    printed = call("leaderboard")  # without a source tree, nothing is written beside the records
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


def test_a_line_that_is_not_a_record_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"key": 1}\n')
    fails(call("leaderboard", "--records", "r.jsonl"), "r.jsonl", "line 1")
