"""Which runs start a worker while they still load torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from rlbench.cli import run
from rlbench.cli.main import main
from rlbench.core.errors import RLBenchError


@pytest.mark.parametrize(
    ("options", "started"),
    [
        ((), True),
        (("--examples", "256"), True),
        (("--workers", "4", "--device", "cpu"), True),
        (("--examples", "255"), False),
        (("--workers", "1"), False),
        (("--executor", "ray"), False),
        (("--dry-run",), False),
    ],
)
def test_only_a_run_that_will_share_its_work_starts_a_worker_ahead(
    options: tuple[str, ...], started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @contextmanager
    def note(module: str) -> Iterator[None]:
        seen.append(module)
        try:
            yield
        finally:
            seen.append("ended")

    def fail(name: str) -> None:
        raise RLBenchError("no further")

    monkeypatch.setattr(run, "processors", lambda: 2)
    monkeypatch.setattr("rlbench.executors.worker.start_ahead", note)
    monkeypatch.setattr("rlbench.core.suite.load_suites", fail)
    done = CliRunner().invoke(main, ["run", "--suite", "thermal", "--model", "rlbind", *options])
    assert done.exit_code != 0 and seen == (["rlbench.engine.run.jobs", "ended"] if started else [])
