"""The pages of all boards: a start page, one page per board, and the reported numbers as a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import escape

from rlbench.report.boards import reported, sensors
from rlbench.report.boards.averages import Macro, macros
from rlbench.report.boards.backbones import describe_mini
from rlbench.report.boards.leaderboard import Board
from rlbench.report.boards.scores import Score, Table, describe_distinction, distinguish_task
from rlbench.report.boards.tables import frame, tables
from rlbench.report.site import page
from rlbench.store.per_example import sources
from rlbench.store.records import read_records
from rlbench.store.rounds import pool_rounds

if TYPE_CHECKING:
    from rlbench.report.site.thumbnails import Report

HOME = "index.html"
ROWS = 5  # of an average on the start page
ABOUT = "Zero-shot accuracy of language-anchored encoders: clean, attacked, corrupted. Choose a board."


@dataclass(frozen=True)
class Link:
    """A link to a table of a board: its page and its text."""

    page: str
    text: str


@dataclass(frozen=True)
class Average:
    """The best rows of a macro average, or of a suite with several sensors.

    Attributes:
        title: the family of suites, or the suite.
        columns: such as clean and robust.
        rows: each a mapping with `model` and its `scores`, None where it has none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Card:
    """A board on the start page: its name, its page, a line about it, its averages, its tables and its backbones."""

    name: str
    page: str
    about: str
    averages: Sequence[Average] = ()
    links: Sequence[Link] = field(default=())
    backbones: Sequence[str] = ()


def render_all(
    boards: Sequence[Board], *, pictures: int = 0, report: Report = lambda what, done, total: None
) -> dict[str, str]:
    """By file name, the start page and the page of each board.

    Args:
        boards: of the installation; one without records or reported numbers is left out.
        pictures: as for `page.render`.
        report: as for `page.render`.

    Raises: StoreError: as `leaderboard.load`.
    """
    pages, cards = dict[str, str](), list[Card]()
    for board in boards:
        address = f"{board.name}.html"
        if board.name == reported.NAME:
            pages[address] = _document(board)
            cards.append(
                Card(board.name, address, "What papers report of their own experiments, beside measured numbers.")
            )
        elif read_records([board.records]):
            pages[address] = page.render([board.records], pictures=pictures, title=board.name, home=HOME, report=report)
            cards.append(_card(board, address))
    cards.sort(key=lambda card: -len(card.links))
    mini = describe_mini(backbone for card in cards for backbone in card.backbones)
    start = _fill(title="rlbench leaderboards", about=ABOUT, cards=cards, mini=mini)
    return {HOME: start, **pages}


def _card(board: Board, address: str) -> Card:
    """A board's card."""
    read = read_records([board.records])
    found = tables(frame(pool_rounds(read)))
    models = {row.model.partition(" (")[0] for table in found for row in table.rows}
    backbones = sorted({row.backbone for table in found for row in table.rows})
    modalities = sorted({str(table.facts["modality"]) for table in found})
    number = f"{len(models)} model{'s' * (len(models) > 1)}"
    about = f"{number}, backbone {', '.join(backbones)}; {', '.join(modalities)}"
    averages = [*_together(found), *map(_average, macros(found, sources=sources(read, [board.records])))]
    links = [Link(f"{address}#{table.facts['suite']}-{k}", _name(table, found)) for k, table in enumerate(found)]
    return Card(board.name, address, about, averages, links, backbones)


def _name(table: Table, found: Sequence[Table]) -> str:
    """What distinguishes a table from the others of a board.

    Args:
        table: to be named.
        found: all tables of the board.
    """
    modalities = {t.facts["modality"] for t in found if t.facts["suite"] == table.facts["suite"]}
    words = [table.facts["suite"], *([table.facts["modality"]] if len(modalities) > 1 else [])]
    suite = " ".join(filter(None, [*map(str, words), distinguish_task(table, found)]))
    apart = describe_distinction(table.facts, table.apart).removeprefix(", ")
    rounds = re.search(r"\((rounds? .*)\)", apart)
    return f"{suite}{f' ({rounds[1] if rounds else apart})' if apart else ''}"


def _average(one: Macro) -> Average:
    return _best(f"{one.family}: mean of {', '.join(one.modalities)}", one.rows)


def _together(found: Sequence[Table]) -> Iterator[Average]:
    """By suite with several sensors, the models, with their fusions if there are several, under its first attack."""
    for group, those in sensors.groups(sensors.sensor_tables(found)).items():
        several = len({table.fusion for table in those}) > 1
        rows = dict[str, Mapping[str, Score | None]]()
        for attack in [attack for table in those for attack in table.attacks][:1]:
            for table in (table for table in those if attack in table.attacks):
                attacked = table.rows[attack]
                scores = {"fused": table.clean, "any 1": attacked.get("any 1"), "all": attacked.get("all")}
                rows[f"{table.model}, {table.fusion}" if several else table.model] = scores
            yield _best(f"{group}; {attack}", rows)


def _best(title: str, rows: Mapping[str, Mapping[str, Score | None]]) -> Average:
    """The best rows by the last column."""
    columns = list(next(iter(rows.values())))
    ordered = sorted(rows.items(), key=lambda item: -_share(item[1].get(columns[-1])))
    best = [{"model": model, "scores": [scores.get(name) for name in columns]} for model, scores in ordered[:ROWS]]
    more = f", the best {ROWS} of {len(ordered)}" if len(ordered) > ROWS else ""
    return Average(title + more, columns, best)


def _share(score: Score | None) -> float:
    return -1.0 if score is None else score.share


def _document(board: Board) -> str:
    """A board of markdown as a page."""
    return _fill(
        title=f"{board.name} · rlbench leaderboard",
        heading=board.name,
        home=HOME,
        about="Reported and measured numbers, side by side and never ranked against each other.",
        text="\n".join(to_html(board.text())),
    )


def _fill(**values: object) -> str:
    """The template with its styles and values; a value that is not given is empty."""
    style = (files("rlbench.report.site") / "templates" / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("rlbench.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    empty = {name: "" for name in ("heading", "home", "text", "cards", "mini")}
    return environment.get_template("start.html.j2").render(
        **{**empty, **values, "style": style, "version": version("rlbind-bench")}
    )


def to_html(text: str) -> Iterator[str]:
    """The blocks of a generated board as HTML: headings, paragraphs and tables, with links and code.

    Args:
        text: markdown as `leaderboard` writes it. The first heading and comments are left out.
    """
    for block in filter(None, (part.strip() for part in text.split("\n\n"))):
        if block.startswith("<!--") or block.startswith("# "):
            continue
        if match := re.match(r"(#{2,4}) (.*)", block):
            level = len(match[1])
            yield f"<h{level}>{_inline(match[2])}</h{level}>"
        elif block.startswith("|"):
            yield _table(block.splitlines())
        elif block.startswith("- "):
            yield f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in block.splitlines())}</ul>"
        else:
            yield f"<p>{_inline(block)}</p>"


def _table(lines: Sequence[str]) -> str:
    def row(line: str, tag: str) -> str:
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        return f"<tr>{''.join(f'<{tag}>{_inline(cell.strip())}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(line, "td") for line in lines[2:])
    return f'<div class="scroll text"><table><thead>{row(lines[0], "th")}</thead><tbody>{body}</tbody></table></div>'


_SPANS: Sequence[tuple[str, Callable[[re.Match[str]], str] | str]] = (
    (r"`([^`]+)`", r"<code>\1</code>"),
    (r"\*\*([^*]+)\*\*", r"<b>\1</b>"),
    (r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>'),
)


def _inline(text: str) -> str:
    """A line as HTML."""
    found = str(escape(text))
    for pattern, replacement in _SPANS:
        found = re.sub(pattern, replacement, found)
    return found
