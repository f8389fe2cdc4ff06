"""README and the site: short, with commands that exist, links that lead somewhere, and verdicts as in the records."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest
import torch
import yaml

from rlbench.cli import main
from rlbench.core import Ball
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suites, suites
from rlbench.core.threat import violation
from rlbench.encoders.models import load_encoder

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SETUP = (
    "pip install -c constraints.txt . && rlbench run --suite thermal --model rlbind",
    "pip install -c constraints.txt -e '.[dev]' && pytest",
)
WORDS = 700


def _blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of a page in this language."""
    yield from re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _commands(page: Path) -> list[str]:
    """The calls of rlbench in a page's shell blocks, without comments; variables and `$(...)` get a value."""
    text = "\n".join(_blocks(page, "sh")).replace("\\\n", " ")
    calls = [part.strip() for line in text.splitlines() for part in line.split(" #")[0].split("&&")]
    calls = [call.replace("$r", "1").replace("$m", "image") for call in calls]
    return [re.sub(r"\$\(.*", "--model M", call) for call in calls if re.match(r"(\w+=\S+ )*rlbench ", call)]


COMMANDS = [(page.name, call) for page in PAGES for call in _commands(page)]


def _parse(call: str) -> click.Context:
    """The context that click makes of a call, without running it. Raises: click.UsageError."""
    words = shlex.split(call)
    command: click.Command = main
    ctx, words = click.Context(main), words[words.index("rlbench") + 1 :]
    while isinstance(command, click.Group):
        found = command.get_command(ctx, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command.make_context(command.name, words, parent=ctx)


@cache
def _suites() -> set[str]:
    return {suite.name for suite in suites()}


@pytest.mark.parametrize(("page", "call"), COMMANDS)
def test_every_command_parses_and_names_suites_that_exist(page: str, call: str) -> None:
    params = _parse(call).params
    named = params.get("suites") or params.get("suite") or ()
    for name in (named,) if isinstance(named, str) else named:
        assert name.endswith(".yaml") or name in _suites(), f"{page}: there is no suite {name}"


def test_a_wrong_command_is_found() -> None:
    with pytest.raises(click.UsageError, match="exampels"):
        _parse("rlbench run --suite thermal --model rlbind --exampels 3")
    assert len(COMMANDS) > 40


def test_readme_is_short_and_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= WORDS
    assert all(command in text for command in SETUP)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target} is missing"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = (re.sub(r"[^\w\- ]", "", head.lower()) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {re.sub(r" +", "-", head.strip()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            there = page.parent / target if target else page
            assert anchor in _anchors(there), f"{page.name}: {target}#{anchor} is missing"


def test_a_wrong_anchor_is_found() -> None:
    assert "soundness" in _anchors(ROOT / "docs" / "attacks.md") and "sound" not in _anchors(
        ROOT / "docs" / "attacks.md"
    )


def test_every_picture_has_a_text() -> None:
    for page in PAGES:
        assert "![](" not in page.read_text(encoding="utf-8"), page.name


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.name for page in PAGES if page.parent == ROOT / "docs"} <= listed
    beside = [path for folder in ("leaderboards", "benchmarks") for path in (ROOT / folder).glob("*.md")]
    assert {f"{path.parent.name}/{path.name}" for path in beside} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_well_formed(page: Path) -> None:
    for block in _blocks(page, "python"):
        compile(block, page.name, "exec")
    for block in _blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict | list)


def test_the_suite_of_several_sensors_loads(tmp_path: Path) -> None:
    file = tmp_path / "my-robot.yaml"
    file.write_text(next(_blocks(ROOT / "docs" / "sensors.md", "yaml")), encoding="utf-8")
    assert len(load_suites(file)) == 2


HABITS = sorted([*(ROOT / ".github").rglob("*.yml"), *ROOT.glob("*.yml"), ROOT / ".pre-commit-config.yaml"])


@pytest.mark.parametrize("path", HABITS, ids=lambda path: path.name)
def test_the_projects_own_files_are_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_citation_has_the_package_s_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"\n## {cited['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@cache
def _tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_tables", ROOT / "docs" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_verdicts_are_up_to_date() -> None:
    """`python docs/tables.py` renews them."""
    page, board = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("docs/mini-numbers.md", "leaderboards/mini.md")
    )
    assert page == _tables().fill_verdicts(page, board)


def test_the_verdicts_are_those_of_the_board_s_sentences() -> None:
    """The board says in words what its tables of differences show: both must give the same verdicts."""
    board = (ROOT / "leaderboards" / "mini.md").read_text(encoding="utf-8")
    said = {}
    for column, sentence in re.findall(r"^- \*\*([\w, ]+)\*\*: rlbind is (.*)\.$", board, re.MULTILINE):
        for part in sentence.split("; "):
            for method, modality in re.findall(r"([\w-]+) \((\w+)\)", part):
                said[column, modality, method] = part.split()[0]
    shown = {
        (column, modality, method): _tables().verdict(cell).strip("*").split()[0]
        for modality, by_method in _tables().read_differences(board).items()
        for method, row in by_method.items()
        for column, cell in row.items()
        if cell != "-"
    }
    assert shown == said and len(said) > 100


def test_a_verdict_needs_a_small_adjusted_p() -> None:
    verdict = _tables().verdict
    assert verdict("+2.1 (34:15, p .009, Holm .038)") == "**above +2.1**"
    assert verdict("-2.4 (2:24, p <.001, Holm <.001)") == "**below -2.4**"
    assert verdict("+5.0 (9:1, p .021, Holm .050)") == "level +5.0" == verdict("+5.0 (9:1, p .021, Holm 1)")
    with pytest.raises(ValueError, match="is not a difference"):
        verdict("93.8")


def test_the_command_reference_has_every_command_and_option() -> None:
    text = _tables().render_commands(main, "rlbench")
    for name, command in main.commands.items():
        assert f"## rlbench {name}" in text
        assert all(one.opts[0] in text for one in command.params if isinstance(one, click.Option))
    assert "| <code>--seed N</code> | Seed of the attacks" in text


def test_names_of_another_library_make_no_wide_column() -> None:
    names = ["torchattacks:FGSM", "torchattacks:PGD"]
    assert _tables()._join_names(names, "Makes one.") == ["`torchattacks:NAME`", "Makes one. NAME is FGSM, PGD."]
    assert _tables()._join_names(["pgd", "fgsm"], "One.") == ["`pgd`, `fgsm`", "One."]


def test_intervals_are_not_broken_between_lines() -> None:
    bound = _tables()._bind("| 89.3 [87.1, 91.2] (88.3 to 90.0) | +2.1 (34:15, p .009, Holm .038) |")
    assert bound.replace("\u00a0", "_") == "| 89.3 [87.1,_91.2] (88.3_to_90.0) | +2.1 (34:15, p_.009, Holm_.038) |"


def _page(name: str, *, block: int = 0) -> str:
    return list(_blocks(ROOT / "docs" / name, "python"))[block]


def test_the_encoder_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_encoder` checks shapes, norms, gradients and evaluation mode."""
    (tmp_path / "page_encoders.py").write_text(_page("your-model.md"))
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("page_encoders:make")
    assert set(encoder.boxes) == {"image"} and encoder.embed_text(["a photo of a dog"]).shape == (1, 64)


def test_the_attack_of_the_page_stays_in_the_ball() -> None:
    names: dict[str, Any] = {}
    exec(_page("attacks.md"), names)
    x, ball = torch.rand(5, 3, 4, 4), Ball("linf", 0.1, 0.0, 1.0)
    corner = names["Corner"]()(None, x, None, ball, ExampleStreams(0, tuple("abcde"), "corner"))
    assert violation(corner, x, ball) is None and (corner - x).abs().max() > 0.05


def test_the_quickstart_s_attack_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(_page("index.md"), names)
    assert len(names["found"].broken) == 16 and names["found"].badge in capsys.readouterr().out


def test_the_objective_of_the_page_is_lowest_where_directions_agree() -> None:
    names: dict[str, Any] = {}
    exec(_page("training.md"), names)
    f0 = torch.randn(4, 8)
    loss = names["Mine"]().loss(f0, 2 * f0, SimpleNamespace(f0=f0))
    assert torch.allclose(loss, torch.zeros(4), atol=1e-6)


def test_the_page_s_sentences_are_what_the_board_shows() -> None:
    board = (ROOT / "leaderboards" / "mini.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "mini-numbers.md").read_text(encoding="utf-8")
    assert "does not hold as a whole" in board and "does not hold as a whole" in page
    robust: dict[str, list[str]] = {}
    for by_method in _tables().read_differences(board).values():
        for method, row in by_method.items():
            robust.setdefault(method, []).append(_tables().verdict(row["robust"]).strip("*").split()[0])
    assert all(robust[method] == ["above"] * 4 for method in ("languagebind", "fare", "agft"))
    assert sorted(robust["advflyp"]) == ["above", "level", "level", "level"]
