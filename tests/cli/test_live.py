"""What `rlbench run` shows: a table on a terminal as it fills, lines elsewhere, and the table so far at Ctrl-C."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from pathlib import Path

import pytest
from commands import RUN, Call
from rich.console import Console

from rlbench.cli import live
from rlbench.cli.console import clock
from rlbench.core import Adversarial, Clean, Corrupted, Perturbation, Threat, Worst
from rlbench.engine.run.progress import CellProgress, Progress

LINF = Threat("linf", Fraction(4, 255))
COLUMNS: tuple[Perturbation, ...] = (
    *(Adversarial(name, LINF) for name in ("adaptive", "apgd-ce", "pgd")),
    Worst(LINF),
    Corrupted("fog", 1),
    Corrupted("snow", 1),
    Clean(),
)


def progress(finished: int = 0, *, model: str = "m", left: float | None = 61.0, seconds: float = 9.0) -> Progress:
    """A run of 100 examples: 20 decided, 10 wrong in each cell, and the last cells finished."""
    cells = []
    for k, column in enumerate(COLUMNS):
        done = k >= len(COLUMNS) - finished
        searching = not isinstance(column, Clean | Corrupted)
        cells.append(CellProgress("s", "t", model, column, 100, 100 if done else 20, 10, searching, done))
    return Progress("what", 5, 10, 1250.0, seconds, left, tuple(cells))


def test_rows_are_clean_corruptions_pgd_apgd_targeted_worst() -> None:
    out = Console(file=StringIO(), width=100, force_terminal=True, color_system=None)
    screen = live.Screen()
    screen.show(progress(2))
    out.print(screen)
    lines = [line.rstrip() for line in out.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    names = ["clean", "2 corruptions at 1", "pgd", "apgd-ce", "adaptive", "worst"]
    rows = lines[3:-1]
    assert [next(name for name in names if row.startswith(name)) for row in rows] == names
    assert rows[0].split() == ["clean", "90.0", "[82.6,", "94.5]", "100"]
    assert rows[1].endswith("90.0   [82.6, 94.5]   1 of 2 cells")
    assert "≤ 90.0" in rows[2] and rows[2].endswith("20 of 100")
    assert lines[-1] == "1,250 passes/s, at most 1:01 left"
    assert live.time_left(progress(seconds=1.0)) == "starting"
    for usual, left in ((30.0, "usually under 0:30"), (0.0, "at most 1:01"), (61.0, "at most 1:01")):
        assert live.time_left(replace(progress(), usual=usual)) == f"1,250 passes/s, {left} left"


def test_the_screen_follows_the_pair_that_moves() -> None:
    def both(first: int, second: int) -> Progress:
        one, other = progress(first, model="a"), progress(second, model="b")
        return Progress("", 1, 2, 1.0, 1.0, None, (*one.cells, *other.cells))

    screen = live.Screen()
    screen.show(both(1, 1))
    assert screen.pair == ("s", "t", "a")
    screen.show(both(1, 2))
    assert screen.pair == ("s", "t", "b")
    screen.show(both(2, 3))  # both move
    assert screen.pair == ("s", "t", "b")


def test_a_line_for_every_cell_that_finishes() -> None:
    out = StringIO()
    lines = live.Lines(Console(file=out, width=200))
    lines.show(progress(1))
    assert out.getvalue() == ""  # what is stored already
    lines.show(progress(2))
    lines.show(progress(2))
    assert out.getvalue() == (
        "s t m  snow 1  90.0 [82.6, 94.5]  n = 100  (2 of 7 cells, 1,250 passes/s, at most 1:01 left)\n"
    )


def test_piped_output_has_no_control_characters_and_quiet_none_at_all(call: Call, mine: Path) -> None:
    result = call(*RUN, "--suite", mine)
    assert result.exit_code == 0
    finished = [line for line in result.stderr.splitlines() if line.startswith("mine blobs linear")]
    assert "\x1b" not in result.output and len(finished) == 13
    assert all("[" in line and "n = 16" in line for line in finished)
    assert call(*RUN, "--suite", mine, "--quiet", "--fresh").stderr == ""


# A process that a shell starts in the background ignores SIGINT, and so do the processes that it starts.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from rlbench.cli import main; "
)


def command(*arguments: object) -> list[str]:
    run = ["run", "--suite", "thermal", "--model", "rlbind", *map(str, arguments)]
    return [sys.executable, "-c", INTERRUPTIBLE + "main(prog_name='rlbench')", *run]


def test_ctrl_c_prints_the_table_so_far(tmp_path: Path) -> None:
    arguments = command("--examples", 64, "--workers", 1, "--out", tmp_path / "store")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert first.startswith("thermal thermal-world rlbind:mini  clean  9") and "n = 64" in first
    assert process.returncode == 130
    assert "clean" in out and "≤" in out and "apgd-ce linf 4/255" in out
    assert errors.strip().splitlines()[-1].endswith("has the finished blocks: the same command continues")


@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_a_terminal_shows_the_table_while_it_fills(tmp_path: Path) -> None:
    import pty

    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    arguments = command("--examples", 24, "--workers", 1, "--out", tmp_path / "store")
    process = subprocess.Popen(arguments, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux's end of file
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait() == 0
    text = shown.decode()
    before, _, after = text.rpartition("thermal v3")
    assert 0 <= text.find("loading") < text.find("examples")
    assert "pgd linf 4/255" in before and "≤" in before and "left" in before and "\x1b[" in before
    assert "≤" not in after


def test_an_hour_is_not_sixty_minutes() -> None:
    assert [clock(seconds) for seconds in (0, 61, 3599.1, 6731)] == ["0:00", "1:01", "1:00:00", "1:52:11"]
