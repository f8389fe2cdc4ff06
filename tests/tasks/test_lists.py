"""The reader of lists: an accepted list has every value in its column; an error names the file and the line."""

import pytest

from rlbench.core.errors import DataError
from rlbench.tasks.lists import drop_fraction, read_lines, read_table

COLUMNS = ("path", "label")


def _read(tmp_path, content: bytes | str, columns=COLUMNS, **options):
    path = tmp_path / "list.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [tuple(line[column] for column in columns) for line in read_table(path, columns, **options)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_dialect_that_the_first_line_determines(tmp_path, delimiter, end, mark) -> None:
    rows = [["label", "other", "path"], ["a", "1", "x.png"], ["b", "", "é y.png"]]
    content = mark + end.join(delimiter.join(row) for row in rows).encode() + end.encode()
    assert _read(tmp_path, content) == [("x.png", "a"), ("é y.png", "b")]


def test_quotes_keep_the_delimiter_in_a_value(tmp_path) -> None:
    assert _read(tmp_path, 'path,label\na.png,"crane, a ""big"" bird"\n') == [("a.png", 'crane, a "big" bird')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na.png,crane, a bird\n", r"list.csv:2: 3 values for 2 columns; a value with a comma in it needs"),
        ("path;label\na.png;x;y\n", r"list.csv:2: 3 values for 2 columns; a value with a semicolon in it needs quotes"),
        ("path,label\na.png,x\n\nb.png\n", r"list.csv:4: 1 value for 2 columns$"),
        ("path,label\na.png, \n", r"list.csv:2: no 'label'"),
        ("path,label\na.png,NaN\n", r"list.csv:2: no 'label'"),
        (
            "path,name\na.png,x\n",
            r"list.csv has no column 'label'; it needs path, label; its first line is 'path,name'",
        ),
        ("", r"list.csv has no column 'path'"),
        ("path,label,label\na.png,x,y\n", r"list.csv:1: the column 'label' appears twice"),
        ('path,label\n"a.png,x\nb.png,y\n', r"list.csv:3: unexpected end of data; check the quotes"),
        ('path,label\na.png,"x\nb.png,y"\n', r"list.csv:3: a line break or control character in 'label'; is a quote"),
        ('path,label\na.png,"x" y\n', r"list.csv:2: .* expected after .*; check the quotes"),
        ("path,label\na.png,\x1b[1mx\n", r"list.csv:2: a line break or control character in 'label'"),
        (f"path,label\na.png,{'x' * 200_000}\n", r"list.csv:2: field larger than field limit"),
        (b"path,label\na.png,x\0\n", r"list.csv is binary, or UTF-16; save it as UTF-8"),
        ("path,label\na.png,x\n".encode("utf-16"), r"list.csv is UTF-16; save it as UTF-8"),
        ("path,label\na.png,café\n".encode("latin-1"), r"list.csv:2: the byte 0xe9 is not UTF-8"),
    ],
)
def test_ambiguous_content_is_refused_with_its_line(tmp_path, content, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _read(tmp_path, content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_wrong_row_is_found_wherever_it_is(tmp_path) -> None:
    """Also in the last of many rows, and in columns that nobody asked for."""
    rows = [f"{k}.png,a,b" for k in range(500)]
    with pytest.raises(DataError, match=r"list.csv:502: 4 values for 3 columns"):
        _read(tmp_path, "\n".join(["path,label,other", *rows, "500.png,a,b,c"]))


def test_whole_numbers_as_pandas_writes_them(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("fold,start\n1.0,059\n2,-3.\n1.5,x\n")
    first, second, third = read_table(path, ("fold", "start"))
    assert (
        first.parse_whole("fold"),
        first.parse_whole("start"),
        second.parse_whole("fold"),
        second.parse_whole("start"),
    ) == (1, 59, 2, -3)
    for column in ("fold", "start"):
        with pytest.raises(DataError, match=rf"a.csv:4: {column} is .*; it must be a whole number"):
            third.parse_whole(column)
    assert [drop_fraction(text) for text in ("1.0", "007", "1.50", "x.0")] == ["1", "007", "1.50", "x.0"]


def test_a_list_without_names(tmp_path) -> None:
    assert _read(tmp_path, "a.png,x\nb.png,y\n", head=COLUMNS) == [("a.png", "x"), ("b.png", "y")]
    with pytest.raises(DataError, match=r"list.csv:2: 3 values for 2 columns"):
        _read(tmp_path, "a.png,x\nb.png,y,z\n", head=COLUMNS)


def test_lines_of_text(tmp_path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff a {}. \r\n\r\nthe\u2028{}\n".encode())
    assert read_lines(path) == ["a {}.", "the\u2028{}"]
    path.write_bytes(b"a\n\x1b[2J{}\n")
    with pytest.raises(DataError, match=r"prompts.txt:2: a control character"):
        read_lines(path)
    with pytest.raises(DataError, match=r"can't read .*prompts.txt: Is a directory|can't read .*: Permission"):
        path.unlink()
        path.mkdir()
        read_lines(path)
