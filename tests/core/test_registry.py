"""The registry: names are found without imports; mistakes in names and fields get a hint."""

import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal
from zipfile import ZipFile

import pytest

import rlbench
from rlbench.core import registry
from rlbench.core.errors import FieldError, RLBenchError, SuiteError, UnknownName
from rlbench.core.suite import load_suite
from rlbench.core.threat import parse_eps
from rlbench.core.validation import check_fields


@dataclass(frozen=True, kw_only=True)
class Plugin:
    steps: int = 20
    rate: float = 0.5
    loss: Literal["ce", "margin"] = "ce"
    names: tuple[str, ...] = ()


def test_names_are_read_from_the_source(tmp_path) -> None:
    source = (
        '"""M."""\n@register("attack", "one", "two")\nclass A:\n    """Does it.\n\n    More."""\n\ndef other(): ...\n'
    )
    (tmp_path / "m.py").write_text(source)
    found = registry.find_plugins("pkg.m", tmp_path / "m.py")
    assert [(e.kind, e.name, e.attribute, e.summary) for e in found] == [
        ("attack", "one", "A", "Does it."),
        ("attack", "two", "A", "Does it."),
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"x = 1\nclass A\n", "line 2, can't be read: expected ':'"),
        (b"# gr\xfcn\n", "can't be read: "),
        (b"x = 1\0", "can't be read: "),
        (b'@register("attack", NAME)\nclass A: ...\n', r"line 1: register\('attack', NAME\); it must be"),
        (b'@register("attak", "one")\nclass A: ...\n', "must be a kind .attack, corruption"),
        (b"@register()\nclass A: ...\n", "must be a kind"),
        (b'def f():\n    @register("attack", "one")\n    class A: ...\n', "registers nothing"),
    ],
)
def test_a_file_of_ones_own_that_registers_nothing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bytes, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "faulty_plugin.py").write_bytes(source)
    monkeypatch.setenv("RLBENCH_PLUGINS", "faulty_plugin")
    registry._entries.cache_clear()
    with pytest.raises(RLBenchError, match=text):
        registry.names("attack")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "import no_such_module",
            r"attack 'one' can't be made: ModuleNotFoundError: .* \(raising_plugin\.py, line 1\)",
        ),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("", r"ValueError: steps is 0 \(raising_plugin\.py, line 5\)"),
    ],
)
def test_what_a_plugin_of_ones_own_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, text: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "raising_plugin", raising=False)
    lines = [source, "from rlbench.core.registry import register", '@register("attack", "one")', "def one():"]
    (tmp_path / "raising_plugin.py").write_text("\n".join([*lines, "    raise ValueError('steps is 0')\n"]))
    monkeypatch.setenv("RLBENCH_PLUGINS", "raising_plugin")
    registry._entries.cache_clear()
    with pytest.raises(RLBenchError, match=text):
        registry.make("attack", "one")


def test_a_corruption_without_modalities_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = 'from rlbench.core.registry import register\n@register("corruption", "bare")\nclass Bare: ...\n'
    (tmp_path / "bare_plugin.py").write_text(source)
    monkeypatch.setenv("RLBENCH_PLUGINS", "bare_plugin")
    registry._entries.cache_clear()
    head = "suite: s\nversion: 1\nsummary: S.\nmodality: image\ntask: {name: blobs}\n"
    (tmp_path / "s.yaml").write_text(head + "perturbations: [clean, {corruption: bare, severity: 1}]\n")
    with pytest.raises(SuiteError, match=r"corruption 'bare' must say what it is for: modalities = frozenset"):
        load_suite(str(tmp_path / "s.yaml"))


def test_a_name_of_a_file_here_says_how_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corner.py").write_text('@register("attack", "corner")\nclass A: ...\n')
    with pytest.raises(RLBenchError, match=r"corner\.py has it, and is read while RLBENCH_PLUGINS=corner is set"):
        registry.factory("attack", "corner")


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(UnknownName, match="no attack named 'pdg'; did you mean 'pgd'"):
        registry.factory("attack", "pdg")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"stepz": 3}, "no field 'stepz'; did you mean 'steps'"),
        ({"steps": "many"}, "steps is 'many'; it must be a whole number"),
        ({"steps": True}, "must be a whole number"),
        ({"steps": 2.5}, "must be a whole number"),
        ({"rate": "x"}, "must be a finite number"),
        ({"loss": "dlr"}, "must be one of ce, margin"),
        ({"names": ["a", 1]}, "names is"),
    ],
)
def test_wrong_fields_are_named(values, text) -> None:
    with pytest.raises(FieldError, match=text):
        check_fields(Plugin, values, "attack 'x'")


def test_right_fields_pass_and_lists_become_tuples() -> None:
    assert check_fields(Plugin, {"rate": 1, "names": ["a"]}, "x") == {"rate": 1, "names": ("a",)}


def test_a_factory_checks_its_keyword_arguments_itself() -> None:
    def factory(*, steps: int, **rest: object) -> None: ...

    assert check_fields(factory, {"steps": 1, "own": "x"}, "attack 'x'") == {"steps": 1, "own": "x"}
    with pytest.raises(FieldError, match="must be a whole number"):
        check_fields(factory, {"steps": "x", "own": "x"}, "attack 'x'")


def test_a_missing_field_is_named() -> None:
    def factory(*, steps: int, name: str = "x") -> None: ...

    with pytest.raises(FieldError, match="needs the field 'steps'"):
        check_fields(factory, {}, "task 'x'")


@pytest.mark.parametrize(
    ("text", "value"), [("4/255", Fraction(4, 255)), (0.5, Fraction(1, 2)), ("0", Fraction(0)), (1, Fraction(1))]
)
def test_eps_is_exact(text, value) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["4/0", "-1", "abc", "nan", "inf", "", None, "1e400x"])
def test_a_wrong_eps_is_refused(text) -> None:
    with pytest.raises(FieldError, match="eps is"):
        parse_eps(text)


def test_a_package_in_an_archive_is_refused(tmp_path: Path) -> None:
    source = Path(rlbench.__file__).parent
    with ZipFile(tmp_path / "rlbench.zip", "w") as archive:
        for path in source.rglob("*.py"):
            archive.write(path, path.relative_to(source.parent))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "rlbench.zip")}
    code = "from rlbench.core import registry; registry.names('attack')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("__init__.py; install it with pip, into a folder")
