"""Checks values that come from YAML or the command line against a dataclass's or function's parameters."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlbench.core import Norm
from rlbench.core.errors import CONTROL, FieldError, quote

TEXT = 10_000  # the most characters of a text
_FRACTION = re.compile(r"([+-]?[0-9]{1,9}) */ *([0-9]{1,9})")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")


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
        return isinstance(value, str) and not CONTROL.search(value.rstrip("\n")) and len(value) <= TEXT
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


def _allowed(hint: object) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(map(_allowed, args))
    if origin is tuple:
        return f"a list, each {_allowed(args[0])}"
    if origin is Mapping:
        return "a mapping such as {key: value}"
    if isinstance(hint, type):
        return _WORDS.get(hint, hint.__name__)
    return str(hint)


@cache
def _signature(base: Any) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """The parameters and their hints, a dataclass's own: inherited ones are written in the names of another module."""
    hints = get_type_hints(base if inspect.isfunction(base) or is_dataclass(base) else base.__init__)
    return inspect.signature(base).parameters, hints


def checked(target: Callable[..., object], values: Mapping[str, object], what: str) -> dict[str, object]:
    """`values` as keyword arguments of `target`; lists become tuples. What `**fields` takes, `target` checks itself.

    Raises:
        FieldError: an unknown or missing name ("did you mean"), or a value of another type; texts are of one line.
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
            raise FieldError(f"{before}{name} is {quote(value)}; it must be {_allowed(hints[name])}", name)
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in values]
    if missing:
        raise FieldError(f"{what or 'it'} needs the field {missing[0]!r}")
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}


_NORMS: dict[str, Norm] = {"linf": "linf", "l2": "l2", "2": "l2", "2.0": "l2"}
_NORMS |= dict.fromkeys(("inf", "linfinity", "infinity", "l∞", "∞"), "linf")


def parse_eps(text: object, what: str = "eps") -> Fraction:
    """A fraction such as "4/255", "0.5" or 1, at least 0, in decimal digits.

    Raises:
        FieldError: "4/0", "-1", "abc", nan, "1e99999".
    """
    given = str(text).strip() if isinstance(text, str | float | int) else ""
    fraction = _FRACTION.fullmatch(given)
    if (fraction and not int(fraction[2])) or not (fraction or _DECIMAL.fullmatch(given)):
        raise FieldError(f"{what} is {quote(text)}; it must be a fraction or number such as 4/255 or 0.5", what)
    eps = Fraction(int(fraction[1]), int(fraction[2])) if fraction else Fraction(given)
    if eps < 0:
        raise FieldError(f"{what} is {quote(text)}; it must not be negative", what)
    return eps


def parse_norm(text: object, what: str = "norm") -> Norm:
    """ "linf" or "l2" of what is often written for them: Linf, L_inf, inf, 2.

    Raises: FieldError for any other norm.
    """
    found = _NORMS.get(re.sub(r"[\s_.-]*", "", str(text).lower()) if not _is_number(text) else str(text))
    if found is None:
        raise FieldError(f"{what} is {quote(text)}; it must be one of {', '.join(get_args(Norm))}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_eps(eps: Fraction, norm: Norm, size: int | None = None, what: str = "eps") -> None:
    """That an eps is one of a box of range 1: beyond the box's own diameter it is a slip of units, such as 8 for 8/255.

    Args:
        size: coordinates of the box, for l2; where it is not known, no box has an l2 diameter above 1000.

    Raises: FieldError.
    """
    most = 1.0 if norm == "linf" else 1000.0 if size is None else math.sqrt(size)
    if eps > most:
        shown = f"{float(eps):g}" if eps.denominator in (1, 2, 4, 5, 10) else str(eps)
        such = f"{eps}/255" if eps.denominator == 1 and eps <= 255 else "4/255" if norm == "linf" else "0.5"
        upto = "0 and 1" if norm == "linf" else f"0 and {most:.4g}"
        raise FieldError(f"{what} is {shown}; for a box of range 1 an {norm} eps lies between {upto}, such as {such}")
