"""A pytest plugin, which makes the regression gate a fixture of any project that has rlbench installed.

    def test_robust(rlbench_check):
        rlbench_check(model="my-encoder", suite="ci")

`rlbench check --model my-encoder --update` writes the references. The plugin does not import torch when pytest starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rlbench.gate.regression import Report


@pytest.fixture
def rlbench_check(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function that runs suites on models, fails the test if `rlbench check` would fail, and returns the report.

    It takes model, suite, reference, margin, alpha and strict as `rlbench check` does, and the options of
    `rlbench.gate.check.measure`, such as out and workers.
    """

    def check(
        model: str | list[str] = (),  # type: ignore[assignment]  # all that have references
        suite: str | list[str] = "ci",
        *,
        margin: float = 2.0,
        alpha: float = 0.05,
        strict: bool = False,
        **options: Any,
    ) -> Report:
        from rlbench.gate.check import check as gate
        from rlbench.gate.regression import Policy
        from rlbench.gate.render import plain

        __tracebackhide__ = True
        report = gate(model, suite, policy=Policy(margin=margin, alpha=alpha, strict=strict), **options)
        text = plain(report)
        request.node.add_report_section("call", "rlbench", text)
        request.node.user_properties.append(("rlbench", text.strip().splitlines()[-1]))
        if report.exit_code:
            pytest.fail(text, pytrace=False)
        return report

    return check
