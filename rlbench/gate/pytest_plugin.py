"""The regression gate in a project's own tests: a pytest plugin, which is there once rlbench is installed.

    def test_robust(rlbench_check):
        rlbench_check(model="my-encoder", suite="ci")

The references are made once by `rlbench check --model my-encoder --update`. pytest starts without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rlbench.gate.regression import Report


@pytest.fixture
def rlbench_check(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Runs suites on models and fails the test where `rlbench check` would; returns the report.

    Arguments: model, suite, reference, and margin, alpha, strict, as of `rlbench check`; others as of
    `rlbench.gate.check.measure`, such as out or workers.
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
