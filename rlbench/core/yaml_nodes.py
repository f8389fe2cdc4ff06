"""A safe subset of YAML: mappings, lists, strings, decimal numbers, booleans and null, of bounded size and depth.

Refused, with the line: tags, repeated keys, keys that are not scalars, control characters, nesting deeper than DEPTH,
and more than NODES nodes after aliases are expanded. Dates and numbers in other notations are strings. `no`, `off`,
`yes` and `on` are booleans, as in YAML 1.1.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from rlbench.core.errors import find_hidden, printable, quote

DEPTH, NODES = 32, 10_000
_LENIENT = re.compile("[\t?\ufeff]")  # where libyaml's parser lets pass what PyYAML's own refuses
_TAG = "tag:yaml.org,2002:"
_SCALARS = {  # by type: the possible first characters of a plain scalar, and the pattern of all of it
    "bool": ("yYnNtTfFoO", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"),
    "int": ("-+0123456789", r"[-+]?(?:0|[1-9][0-9]{0,17})"),
    "float": (
        "-+.0123456789",
        r"[-+]?(?:[0-9]{1,17}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,17}(?=e[-+]))(?:e[-+]?[0-9]{1,2})?",
    ),
    "merge": ("<", r"<<"),
    "null": ("~nN", r"~|null|Null|NULL"),
}


class NotAllowed(yaml.MarkedYAMLError):
    """Well-formed YAML outside the subset."""


class Subset(Composer, SafeConstructor, Resolver):
    """Composes and constructs nodes from a parser's events; every mistake is a `yaml.YAMLError` with its line."""

    peek_event: Any  # the parser's
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - pyyaml's own declaration

    def __init__(self) -> None:
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self.depth = self.nodes = 0
        self.sizes: dict[int, int] = {}  # number of nodes under a node, by its id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if getattr(event, "tag", None) is not None:
            self._fail(
                f"the tag {quote(event.tag.replace(_TAG, '!!'))} is not allowed; write the value alone",
                event.start_mark,
            )
        before = self.nodes
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.depth > DEPTH:
            self._fail(f"it is nested deeper than {DEPTH}", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                self._fail(f"*{event.anchor} holds itself", event.start_mark)
            self.nodes += self.sizes[id(node)]
        else:
            self.sizes[id(node)] = self.nodes - before
        if self.nodes > NODES:
            self._fail(f"it holds more than {NODES:,} values, counting those of aliases again", event.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if hidden := find_hidden(node.value.replace("\n", "").replace("\t", "")):
            self._fail(f"the control character {hidden!r} is not allowed", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail("a key must be one word", key.start_mark)
            if key.value in seen:
                self._fail(f"{printable(key.value)[:80]}: appears twice", key.start_mark)
            seen.add(key.value)
            if key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"  # `no: 1` and `0: 1` have the keys "no" and "0"
        return node

    def _fail(self, problem: str, mark: Any) -> None:
        raise NotAllowed(problem=problem, problem_mark=mark)


for _kind, (_first, _whole) in _SCALARS.items():
    Subset.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_whole})\Z"), list(_first))
Subset.add_implicit_resolver(f"{_TAG}null", re.compile(r"\Z"), [""])


class Loader(Subset, yaml.SafeLoader):
    """With PyYAML's own parser, whose messages say what is wrong where."""

    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)
        Subset.__init__(self)


if yaml.__with_libyaml__:

    class FastLoader(Subset, yaml.CSafeLoader):
        """With libyaml's parser, ten times as fast."""

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Subset.__init__(self)


def compose(text: str) -> yaml.Node | None:
    """The root node of a text of one document. Raises: yaml.YAMLError."""
    if yaml.__with_libyaml__ and not _LENIENT.search(text):
        with suppress(yaml.YAMLError):
            return FastLoader(text).get_single_node()
    return Loader(text).get_single_node()


def construct(node: yaml.Node) -> Any:
    """The plain value of a composed node. Raises: yaml.YAMLError."""
    return Subset().construct_object(node, deep=True)
