"""The package's requirements: lower bounds, and constraints that satisfy them."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CAPPED = {"torchattacks"}


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_a_dependency_has_a_lower_bound_and_no_cap(text: str) -> None:
    needed = Requirement(text)
    operators = [one.operator for one in needed.specifier]
    assert operators.count(">=") == 1 and (len(operators) == 1) != (needed.name in CAPPED)


def test_the_tested_versions_satisfy_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(one.name): next(iter(one.specifier)) for one in tested}
    assert len(versions) == len(tested) and all(one.operator == "==" for one in versions.values())
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["dev"], *extras["docs"]]:
        needed = Requirement(text)
        if needed.name != "setuptools":  # pip does not list it
            assert versions[canonicalize_name(needed.name)].version in needed.specifier
