"""The public names of the package: few, lazy, documented."""

import inspect
import subprocess
import sys

import pytest

import rlbench

CALLABLE = sorted(set(rlbench.__all__) - {"__version__", "leaderboard"})


def test_the_facade_is_what_is_documented() -> None:
    assert set(dir(rlbench)) == set(rlbench.__all__)
    assert set(rlbench.__all__) == {"__version__", "attack", "leaderboard", "load_encoder", "load_suite", "run"}
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        _ = rlbench.atack  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CALLABLE)
def test_every_name_resolves_and_is_documented_and_typed(name: str) -> None:
    thing = getattr(rlbench, name)
    assert inspect.getdoc(thing) and len(inspect.getdoc(thing) or "") > 60, f"{name} needs a docstring"
    signature = inspect.signature(thing)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter.name} has no type"


def test_leaderboard_is_the_module() -> None:
    assert inspect.ismodule(rlbench.leaderboard)
    assert {"load", "render"} <= set(vars(rlbench.leaderboard))


def test_importing_rlbench_is_light() -> None:
    code = "import sys, rlbench; print(sorted({'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
