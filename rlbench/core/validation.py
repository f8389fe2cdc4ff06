"""Checks values from YAML or the command line against the parameters of a dataclass or function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlbench.core.errors import FieldError, find_hidden, quote

TEXT = 10_000  # the most characters of a string


def _fits(value: object, hint: object) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, args[0]) for v in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
    if hint is str:
        return isinstance(value, str) and len(value) <= TEXT and not find_hidden(value.rstrip("\n"))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (None, NoneType):
        return value is None
    return isinstance(value, hint) if isinstance(hint, type) else True


_WORDS = {
    str: "a text of one line",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    NoneType: "null",
}


def _describe_type(hint: object) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(map(_describe_type, args))
    if origin is tuple:
        return f"a list, each {_describe_type(args[0])}"
    if origin is Mapping:
        return "a mapping such as {key: value}"
    if isinstance(hint, type):
        return _WORDS.get(hint, hint.__name__)
    return str(hint)


@cache
def _signature(base: Any) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """The parameters and their type hints; a dataclass's hints resolve inherited fields in their own module."""
    hints = get_type_hints(base if inspect.isfunction(base) or is_dataclass(base) else base.__init__)
    return inspect.signature(base).parameters, hints


def check_fields(target: Callable[..., object], values: Mapping[str, object], what: str) -> dict[str, object]:
    """Checks `values` as keyword arguments of `target` and returns them, with lists as tuples.

    Args:
        target: a dataclass or function; it checks what its `**fields` takes itself.
        values: by parameter.
        what: how messages call `target`, such as "attack 'pgd'".

    Raises:
        FieldError: a name is unknown ("did you mean") or missing, or a value has another type; strings are one line.
    """
    parameters, hints = _signature(getattr(target, "func", target))
    bound = set(getattr(target, "keywords", {}))
    taken = {n: p for n, p in parameters.items() if n not in bound}
    known = {n: p for n, p in taken.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    before = f"{what}: " if what else ""
    for name, value in values.items():
        if name not in known and known != taken:
            continue
        if name not in known:
            near = get_close_matches(str(name)[:80], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(known) or 'none'}"
            raise FieldError(f"{what or 'it'} has no field {quote(name)}; {hint}", name)
        if not _fits(value, hints.get(name, Any)):
            raise FieldError(f"{before}{name} is {quote(value)}; it must be {_describe_type(hints[name])}", name)
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in values]
    if missing:
        raise FieldError(f"{what or 'it'} needs the field {missing[0]!r}")
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
