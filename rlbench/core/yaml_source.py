"""YAML whose parts know their file and line, so that error messages can name them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import yaml

from rlbench.core.documents import read_text as read_file
from rlbench.core.documents import reason
from rlbench.core.errors import FieldError, RLBenchError, SuiteError, UnknownName, first_line, printable, quote
from rlbench.core.validation import check_fields
from rlbench.core.yaml_nodes import NotAllowed, compose, construct

T = TypeVar("T")


@dataclass(frozen=True)
class YamlPart:
    """A node of the YAML tree with its position.

    Attributes:
        path: the file, as messages name it.
        key: of the mapping that it is a value of.
        node: as PyYAML composed it.
        line: from 1 on.
        error: the class of exception for its mistakes.
    """

    path: str
    key: str
    node: yaml.Node
    line: int
    error: type[RLBenchError] = SuiteError

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode)

    def fail(self, problem: object) -> NoReturn:
        """Raises `error` with the file, line and key."""
        raise self.error(f"{self.path}:{self.line}: {printable(self.key)}: {problem}")

    def value(self) -> Any:
        """The plain value."""
        try:
            return construct(self.node)
        except yaml.YAMLError as error:
            self.fail(getattr(error, "problem", None) or first_line(error))

    def items(self) -> dict[str, YamlPart]:
        """The parts of a mapping."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"{quote(self.value())} must be a mapping such as {{key: value}}")
        self.value()  # expands merges
        return {key.value: replace(self, key=key.value, node=node, line=_line(key)) for key, node in self.node.value}

    def each(self) -> list[YamlPart]:
        """The parts of a list, which must not be empty; a single value counts as a list of one."""
        if not isinstance(self.node, yaml.SequenceNode):
            return [self]
        if not self.node.value:
            self.fail("the list is empty; give at least one")
        return [replace(self, node=node, line=_line(node)) for node in self.node.value]

    def text(self) -> str:
        """The value as a string without surrounding white space."""
        value = self.value()
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{quote(value)} must be text (quote a number or a word such as no)")
        return value.strip()

    def whole(self, least: int, most: int | None = None) -> int:
        """The value as an integer in [least, most]."""
        value = self.value()
        if type(value) is not int or value < least or (most is not None and value > most):
            self.fail(f"{quote(value)} must be a whole number, {f'{least} to {most}' if most else f'at least {least}'}")
        return value

    def one_of(self, kind: str, known: Sequence[str]) -> str:
        """The value as one of the names `known` of a `kind`."""
        value = self.text()
        if value not in known:
            self.fail(UnknownName(kind, value, known))
        return value

    def make(self, kind: Callable[..., T], parts: Mapping[str, YamlPart] | None = None, **known: object) -> T:
        """Calls `kind` with the keys of this mapping, or only `parts` of them, and `known`. Raises: FieldError."""
        parts = self.items() if parts is None else parts
        try:
            values = {key: part.value() for key, part in parts.items()}
            return kind(**check_fields(kind, {**values, **known}, ""))
        except FieldError as error:
            at = parts.get(error.field) or self
            raise FieldError(f"{at.path}:{at.line}: {error}", error.field) from None


def check_keys(
    parts: Mapping[str, YamlPart], whole: YamlPart, known: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Raises the parts' error for a key that is unknown or missing."""
    for key, part in parts.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(known)}"
            part.fail(f"no such key; {hint}")
    for key in known:
        if key not in parts and key not in optional:
            whole.fail(f"the key {key!r} is missing")


def parse(path: str, text: str, what: str = "suite", error: type[RLBenchError] = SuiteError) -> YamlPart:
    """The root of a YAML text.

    Args:
        path: how messages name the file.
        text: its content.
        what: the kind of file, such as "suite".
        error: the class of exception for mistakes.
    """
    try:
        node = compose(text)
    except yaml.YAMLError as fault:
        at = text[: fault.position].count("\n") if isinstance(fault, yaml.reader.ReaderError) else 0
        mark = getattr(fault, "problem_mark", None)
        problem = getattr(fault, "problem", None) or getattr(fault, "reason", None) or first_line(fault)
        kind = "" if isinstance(fault, NotAllowed) else "not YAML: "
        line = mark.line if mark else at
        hint = (
            '; between { } put quotes around it: "${...}"'
            if "${" in "".join(text.splitlines()[line : line + 1])
            else ""
        )
        raise error(f"{path}:{line + 1}: {kind}{problem}{hint}") from None
    if node is None:
        raise error(f"{path}:1: the file is empty")
    return YamlPart(path, what, node, _line(node), error)


def read(path: str | os.PathLike[str], what: str = "suite", error: type[RLBenchError] = SuiteError) -> YamlPart:
    """The root of a YAML file; see `parse`."""
    try:
        text = read_file(path)
    except (OSError, UnicodeDecodeError) as fault:
        raise error(f"{path}: can't read the {what} file: {reason(fault)}") from None
    return parse(str(path), text, what, error)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
