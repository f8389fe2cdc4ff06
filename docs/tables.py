"""Hooks of the site: tables of what is installed, and the boards and measurements that lie outside docs/.

    python docs/tables.py    writes the table of verdicts into mini-numbers.md, from leaderboards/mini.md

A line `<!-- table: KIND -->` of a page becomes a table: suites, attacks, corruptions, ... as `rlbench list` prints
them, `data-sets`, `checks` (the soundness checks) or `commands` (the command line).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
PAGE, BOARD = ROOT / "docs" / "mini-numbers.md", ROOT / "leaderboards" / "mini.md"
BESIDE = ("leaderboards", "benchmarks")  # folders whose pages and pictures are part of the site
ALPHA = 0.05
_MARKS = re.compile(r"(<!-- verdicts of leaderboards/mini.md -->\n).*(<!-- end of verdicts -->)", re.DOTALL)
_CELL = re.compile(r"([+-][\d.]+) \(.*Holm (<?[\d.]+)\)")


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(cell: str) -> str:
    """`+2.1 (34:15, p .009, Holm .038)` -> `above +2.1`: as the board's sentences have it.

    Raises:
        ValueError: it is not a cell of a table of differences.
    """
    found = _CELL.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r} is not a difference, such as '+2.1 (34:15, p .009, Holm .038)'")
    points, p = found.groups()
    if float(p.lstrip("<")) >= ALPHA:
        return f"level {points}"
    return f"**above {points}**" if points.startswith("+") else f"**below {points}**"


def read_differences(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """The tables of differences of a board of rounds: cells by modality, method and column."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    modality, head = "", list[str]()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("## "):
            modality, head = line[3:], []
        elif line.startswith("| rlbind:mini minus"):
            head = cells[1:]
        elif not line.startswith("|"):
            head = []
        elif head and not line.startswith("|:"):
            found.setdefault(modality, {})[cells[0].split(":")[0]] = dict(zip(head, cells[1:], strict=True))
    return found


def render_verdicts(text: str) -> str:
    """One table a column of the board: a row a method, a column a modality; rlbind minus the method."""
    differences = read_differences(text)
    columns = list(dict.fromkeys(name for by in differences.values() for row in by.values() for name in row))
    methods = {
        name: [by[name] for by in differences.values() if name in by] for by in differences.values() for name in by
    }
    order = sorted(
        methods, key=lambda name: (-len(methods[name]), -sum(_points(row["robust"]) for row in methods[name]))
    )
    parts = []
    for column in columns:
        rows = []
        for method in order:
            cells = [by.get(method, {}).get(column, "-") for by in differences.values()]
            rows.append([f"`{method}`", *(cell if cell == "-" else verdict(cell) for cell in cells)])
        parts += [f"### {column[0].upper()}{column[1:]}", grid(["RLBind against", *differences], rows)]
    return "\n\n".join(parts)


def _points(cell: str) -> float:
    return float(cell.split()[0])


def fill_verdicts(page: str, board: str) -> str:
    """The page with the board's verdicts between its marks."""
    return _MARKS.sub(lambda match: f"{match[1]}\n{render_verdicts(board)}\n\n{match[2]}", page)


def _installed(kind: str) -> str:
    from rlbench.cli.listing import list_installed

    rows = list_installed(kind)
    if kind == "suites":
        head = ["suite", "version", "modality", "summary"]
        return grid(head, ([f"`{r['name']}`", str(r["version"]), str(r["modality"]), str(r["summary"])] for r in rows))
    names: dict[str, list[str]] = {}  # by summary: one class may be registered under several names
    for row in rows:
        names.setdefault(str(row["summary"]), []).append(str(row["name"]))
    return grid([kind[:-1], "summary"], (_join_names(same, summary) for summary, same in names.items()))


def _join_names(names: Sequence[str], summary: str) -> list[str]:
    """A row of names that share a summary; those of a library become one name and a list."""
    library, _, first = names[0].partition(":")
    if len(names) == 1 or not first:
        return [", ".join(f"`{name}`" for name in names), summary]
    return [f"`{library}:NAME`", f"{summary} NAME is {', '.join(name.partition(':')[2] for name in names)}."]


def _data_sets() -> str:
    from rlbench.tasks.integrity import list_data_sets

    rows = []
    for name, one in list_data_sets().items():
        source = one.source
        rows.append(
            [f"`{name}`", f"[{source.title}]({source.url})", one.kind, str(source.test or "-"), f"`{source.folder}`"]
        )
    return grid(["name", "data set", "modality", "test examples", "folder in RLBENCH_DATA"], rows)


def _checks() -> str:
    from rlbench.core.badges import CHECKS

    rows = ([f"**{one.id}**" if one.always else one.id, one.asks, one.rule] for one in CHECKS.values())
    return grid(["check", "what has to hold", "rule"], rows)


def render_commands(command: click.Command, path: str) -> str:
    """A command's help, its options and its subcommands, as sections of Markdown."""
    ctx = click.Context(command, info_name=path)
    parts = [f"## {path}", _paragraphs(command.help or "")]
    if isinstance(command, click.Group):
        named = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
        return "\n\n".join([*parts, *(render_commands(one, f"{path} {name}") for name, one in named if one)])
    parts.append(f"```text\n{path} {' '.join(command.collect_usage_pieces(ctx))}\n```")
    helps = [one.get_help_record(ctx) for one in command.params if isinstance(one, click.Option)]
    parts.append(grid(["option", "meaning"], ([_code(one[0]), escape(one[1], quote=False)] for one in helps if one)))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    """click's help as Markdown: a block after a \\b is set as it is."""
    blocks = cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{block[2:]}\n```" if block.startswith("\b\n") else escape(block, quote=False) for block in blocks
    )


def _code(text: str) -> str:
    return f"<code>{escape(text).replace('|', '&#124;')}</code>"


def _commands() -> str:
    from rlbench.cli import main

    return render_commands(main, "rlbench")


def _table(kind: str) -> str:
    return {"checks": _checks, "commands": _commands, "data-sets": _data_sets}.get(kind, lambda: _installed(kind))()


def _bind(line: str) -> str:
    """A row of a board whose intervals, such as `[87.1, 91.2]` and `(57.7 to 62.7)`, are not broken between lines."""
    line = re.sub(r"\[([\d.-]+), ([\d.-]+)\]", "[\\1,\u00a0\\2]", line)
    line = re.sub(r"\(([\d.]+) to ([\d.]+)\)", "(\\1\u00a0to\u00a0\\2)", line)
    return re.sub(r"\b(p|Holm) (?=[<.\d])", "\\1\u00a0", line)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Adds the pages and pictures of the folders beside docs/."""
    from mkdocs.structure.files import File

    for folder in BESIDE:
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in (".md", ".png"):
                files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills the tables, and points links to the folders beside docs/ at their pages in the site."""
    if "/" in page.file.src_uri:
        page.meta["hide"] = ["toc"]  # wide tables
        markdown = "\n".join(_bind(line) if line.startswith("|") else line for line in markdown.split("\n"))
    else:
        markdown = re.sub(rf"\]\(\.\./(?={'|'.join(BESIDE)})", "](", markdown)
    return re.sub(r"<!-- table: ([\w-]+) -->", lambda match: _table(match[1]), markdown)


if __name__ == "__main__":
    PAGE.write_text(
        fill_verdicts(PAGE.read_text(encoding="utf-8"), BOARD.read_text(encoding="utf-8")), encoding="utf-8"
    )
