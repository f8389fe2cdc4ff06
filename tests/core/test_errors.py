"""Messages are one line that is safe to print: hidden characters are escaped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlbench.core.errors import LINE, QUOTED, find_hidden, one_line, printable, quote


@pytest.mark.parametrize("hidden", ["\x1b", "\0", "\x9b", "\n", "\u202e", "\u2066", "\u200b", "\u2028", "\ud800"])
def test_a_hidden_character_is_found_and_escaped(hidden: str) -> None:
    assert find_hidden(f"a{hidden}b") == hidden
    escaped = printable(f"a{hidden}b")
    assert escaped.isprintable() and escaped[0] == "a" and escaped[1] == "\\" and escaped[-1] == "b"


@pytest.mark.parametrize("text", ["", "plain", "é 漢字", "می\u200cخواهم", "\N{MAN}\u200d\N{ROCKET}", "a\u00a0b"])
def test_text_of_any_script_is_unchanged(text: str) -> None:
    assert find_hidden(text) == "" and printable(text) == text


@given(st.text())
def test_printed_text_has_no_hidden_character(text: str) -> None:
    assert not find_hidden(printable(text))
    assert (printable(text) == text) == (not find_hidden(text))


@given(st.text(max_size=2000))
def test_lines_and_quotes_are_short(text: str) -> None:
    assert len(one_line(text)) <= LINE + 5 and not find_hidden(one_line(text))
    assert len(quote(text)) <= QUOTED + 5
