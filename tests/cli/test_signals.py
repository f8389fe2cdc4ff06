"""SIGTERM ends a run or an audit like Ctrl-C: with one line that says how to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import RUN, Call

from rlbench.audit import report
from rlbench.cli.signals import terminable
from rlbench.engine.run import runner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
NUMBERS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard, also where a shell started the tests in the background and so has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop(number: signal.Signals):
    """A function that gets the signal while it works."""
    return lambda *_, **__: os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), NUMBERS)
def test_a_run_says_how_to_go_on(call: Call, mine: Path, tmp_path: Path, monkeypatch, number, code) -> None:
    monkeypatch.setattr(runner, "execute", stop(number))
    result = call(*RUN, "--suite", mine, "--out", "store")
    last = result.stderr.strip().splitlines()[-1]
    assert (result.exit_code, last) == (
        code,
        "rlbench: interrupted; store has the finished blocks: the same command continues",
    )
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "code"), NUMBERS)
def test_an_audit_says_how_to_go_on(call: Call, tmp_path: Path, monkeypatch, number, code) -> None:
    monkeypatch.setattr(report, "audit", stop(number))
    result = call("audit", "--suite", "smoke", "--model", "linear", "--quiet")
    assert result.exit_code == code and result.stderr.count("\n") == 1
    assert "nothing was written: the same command starts the audit again" in result.stderr
    assert not (tmp_path / "rlbench-results").exists()


def test_the_handler_of_another_program_stays(monkeypatch) -> None:
    own = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, own)

    def elsewhere() -> None:
        with terminable():
            pass

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
