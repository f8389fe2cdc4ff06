"""Which suites a run was asked for: each once, and never two of one name."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import suite_file

from rlbench.core.errors import SuiteError
from rlbench.core.suite import load_suite
from rlbench.engine.plan.chosen import load_chosen


def test_a_suite_that_is_given_twice_runs_once(tmp_path, monkeypatch) -> None:
    path = suite_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    (only,) = load_chosen([path, f"./{Path(path).name}", load_suite(path)], absent=False)
    assert only.path == path


def test_two_suites_of_one_name_are_refused(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    one, other = suite_file(tmp_path), suite_file(tmp_path / "other")
    with pytest.raises(SuiteError, match=f"{one} and {other} are both .* version 1, on .*another name"):
        load_chosen([one, other], absent=False)
    loaded = load_suite(one)
    with pytest.raises(SuiteError, match="another name"):
        load_chosen([loaded, replace(loaded, examples=loaded.examples + 1)], absent=False)
    newer = replace(loaded, version=2)
    assert load_chosen([loaded, newer], absent=False) == [loaded, newer]
