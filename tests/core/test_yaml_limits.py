"""Unusual YAML is refused quickly, with one line that names the file and the line."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import pytest
import yaml

from rlbench.core.errors import RLBenchError
from rlbench.core.suite import load_suites, suites
from rlbench.core.yaml_nodes import DEPTH, compose, construct
from rlbench.core.yaml_source import parse
from rlbench.encoders.cards import read_card
from rlbench.report.boards.reported import read as read_board
from rlbench.training.campaign_file import read_campaign

READERS: dict[str, Callable[[Path], Any]] = {
    "suite": load_suites,
    "card": read_card,
    "campaign": lambda path: read_campaign(path, path.parent),
    "board": read_board,
}
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)
TEXTS = {
    "nothing": b"",
    "a comment": b"# only\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "a tab": b"a:\n\t- b\n",
    "NUL": b"a: 1\nb: \0\n",
    "an escaped NUL": b'a: 1\nb: "\\0"\n',
    "a lone surrogate": b'a: "\\ud800"\n',
    "Latin-1": b"a: 1\nb: \xe9\n",
    "UTF-16": "a: 1".encode("utf-16"),
    "deep": b"a: " + b"[" * 5000 + b"]" * 5000,
    "deep mappings": b"{a: " * 3000,
    "a bool tag": b"a: !!bool abc",
    "a python tag": b"a: !!python/object/apply:os.system [ls]",
    "laughs": BOMB.encode(),
    "a loop": b"a: &a [*a]",
    "a key twice": b"a: 1\na: 2\n",
    "a list as key": b"? [a]\n: b\n",
    "a merge of a list": b"a: {<<: [1, 2]}",
    "a text": b"text",
    "a number": b"3",
    "many values": b"a: [" + b"x, " * 30_000 + b"]",
    "many bytes": b"x" * 3_000_000,
    "a long key": b"x" * 100_000 + b": 1",
}
PIECES = [
    *"\t\n :-{}[],&*!|>'\"%@`#?~<\r\x85\ufeff\0é",
    "\n  ",
    "- ",
    "? ",
    ": ",
    "---\n",
    "&a ",
    "*a",
    "<<: ",
    "|\n",
    " #",
    "{a: ",
    "\r\n",
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", TEXTS)
def test_unusual_yaml_is_refused_quickly_in_one_line(tmp_path: Path, reader: str, text: str) -> None:
    path, begun = tmp_path / "mine.yaml", process_time()
    path.write_bytes(TEXTS[text])
    with pytest.raises(RLBenchError, match=r"mine\.yaml:") as error:
        READERS[reader](path)
    said = str(error.value)
    assert "\n" not in said and "\0" not in said and len(said) < 400 + len(str(path))
    assert process_time() - begun < 2


@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path, reader: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "zero", "missing"):
        with pytest.raises(RLBenchError, match=f"{name}.yaml"):
            READERS[reader](tmp_path / f"{name}.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("12", 12), ("-3", -3), ("1.5", 1.5), ("1e-3", 0.001), ("1.0e5", 1e5), ("no", False), ("~", None)),
        *((text, text) for text in ("010", "0x1f", "1_000", "1:30", "2024-99-99", ".inf", "1e309", "9" * 19, "٣", "=")),
    ],
)
def test_only_plain_decimals_are_numbers(text: str, value: object) -> None:
    node = compose(f"a: {text}")
    assert node is not None and construct(node) == {"a": value}


def test_merges_and_aliases_are_read() -> None:
    whole = parse("x.yaml", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nno: 4\n0: 5\n")
    assert whole.value() == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "no": 4, "0": 5}
    assert {key: part.value() for key, part in whole.items()["b"].items().items()} == {"x": 1, "y": 3}


def test_nesting_at_the_limit_and_one_deeper() -> None:
    parse("x.yaml", "[" * (DEPTH - 1) + "]" * (DEPTH - 1))
    with pytest.raises(RLBenchError, match=r"^x\.yaml:1: it is nested deeper than"):
        parse("x.yaml", "[" * (DEPTH + 1) + "]" * (DEPTH + 1))


def composed(text: str) -> object:
    """The tree, with the line of each value that is not empty, or the message."""

    def unfold(node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return node.tag, node.value, node.value and node.start_mark.line
        return [unfold(one) for item in node.value for one in (item if isinstance(item, tuple) else [item])]

    try:
        return (node := compose(text)) and unfold(node)
    except yaml.YAMLError as error:
        return str(error)


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml")
def test_both_parsers_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bundled suites as they are, and 2,000 pieces of them with characters put in."""
    random, whole = Random(0), [Path(info.path).read_text() for info in suites()]
    texts = list(whole)
    for _ in range(2000):
        lines = random.choice(whole).splitlines(keepends=True)
        first = random.randrange(len(lines))
        text = "".join(lines[first : first + 6])
        for _ in range(random.choice([1, 1, 2, 3])):
            at = random.randrange(len(text) + 1)
            text = text[:at] + random.choice(PIECES) + text[at + random.choice([0, 0, 1, 2]) :]
        texts.append(text)
    fast = [composed(text) for text in texts]
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert fast == [composed(text) for text in texts]
    assert len(whole) < sum(not isinstance(one, str) for one in fast) < len(texts)
