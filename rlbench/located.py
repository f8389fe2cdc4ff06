"""YAML whose parts know their file and line, so that a mistake is reported where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml

from rlbench.errors import SuiteError, UnknownName


@dataclass(frozen=True)
class Part:
    """A node of the YAML tree that knows its file, its key and its line."""

    path: str
    key: str
    node: yaml.Node
    line: int

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode)

    def fail(self, problem: object) -> NoReturn:
        raise SuiteError(f"{self.path}:{self.line}: {self.key}: {problem}")

    def value(self) -> Any:
        """The plain value, as yaml.safe_load gives it."""
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(self.node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.fail(getattr(error, "problem", None) or error)

    def items(self) -> dict[str, Part]:
        """The parts of a mapping; a key that stands twice is an error."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"{self.value()!r} must be a mapping such as {{key: value}}")
        parts: dict[str, Part] = {}
        for key, node in self.node.value:
            line = key.start_mark.line + 1
            part = Part(self.path, str(getattr(key, "value", key)), node, line)
            if not isinstance(key, yaml.ScalarNode) or part.key in parts:
                part.fail("stands twice" if part.key in parts else "a key must be one word")
            parts[part.key] = part
        return parts

    def each(self) -> list[Part]:
        """The parts of a list that is not empty; a single value is a list of one."""
        if not isinstance(self.node, yaml.SequenceNode):
            return [self]
        if not self.node.value:
            self.fail("the list is empty; give at least one")
        return [Part(self.path, self.key, node, node.start_mark.line + 1) for node in self.node.value]

    def text(self) -> str:
        value = self.value()
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{value!r} must be text (quote a number or a word such as no)")
        return value.strip()

    def whole(self, least: int, most: int | None = None) -> int:
        value = self.value()
        if type(value) is not int or value < least or (most is not None and value > most):
            self.fail(f"{value!r} must be a whole number, {f'{least} to {most}' if most else f'at least {least}'}")
        return value

    def one_of(self, kind: str, known: Sequence[str]) -> str:
        value = self.text()
        if value not in known:
            self.fail(UnknownName(kind, value, known))
        return value

    def plain(self) -> Any:
        """The value of a part whose mappings hold no key twice."""
        value = self.value()
        if isinstance(self.node, yaml.MappingNode):
            for part in self.items().values():
                part.plain()
        return value


def check_keys(parts: Mapping[str, Part], whole: Part, known: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Every key of `parts` is known, and none is missing."""
    for key, part in parts.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(known)}"
            part.fail(f"no such key; {hint}")
    for key in known:
        if key not in parts and key not in optional:
            whole.fail(f"the key {key!r} is missing")


def parse(path: str, text: str) -> Part:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SuiteError(f"{path}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if node is None:
        raise SuiteError(f"{path}:1: the file is empty")
    return Part(path, "suite", node, node.start_mark.line + 1)
