"""Finds every module, tensor, array, simple value and function that an object can reach.

The walk follows attributes and slots, containers, bound methods, partial functions, closures, default arguments, and
the globals that a user's own functions name. Of objects from Python's library, torch, numpy and transformers, only the
type counts; torch modules are followed whatever library they come from.
"""

from __future__ import annotations

import datetime
import functools
import random
import re
import sys
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from threading import local
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlbench.core import sources
from rlbench.core.errors import RLBenchError

LIMIT = 1_000_000  # objects
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_SIMPLE = (
    *_PLAIN,
    *(Fraction, Decimal, PurePath, Enum, re.Pattern, range, slice, type(Ellipsis), np.generic, np.dtype),
    *(torch.dtype, torch.device, datetime.date, datetime.time, datetime.timedelta),
)
_TABLES = (dict, MappingProxyType, UserDict, ChainMap)
_ROWS = (list, tuple, deque, UserList, set, frozenset)
_OPEN = (SimpleNamespace, local)  # classes of Python's library that are followed
_CLOSED = frozenset({"torch", "numpy", "transformers", "tokenizers", "huggingface_hub", "safetensors", "PIL"})
_TOWERS = ("_modules", "_parameters", "_buffers")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_TORCH = frozenset(vars(nn.Module())) | {"name_or_path"}  # what is not a field of a module; transformers adds a path
_CLASS = frozenset(vars(type("_", (), {}))) | {"__annotations__", "__slots__", "__firstlineno__", "__match_args__"}
_GENERATED = ("__dataclass", "__static_attributes__", "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_")
Places = Iterator[tuple[str, object]]  # paths, and the objects there


@dataclass(frozen=True)
class Name:
    """A text in place of an object: its type, the name of a library's function, or the path where it came before."""

    text: str


@dataclass(frozen=True)
class Code:
    """A user's function: its qualified name, and the hash of its bytecode."""

    name: str
    digest: str


@dataclass(frozen=True)
class HeldObject:
    """An object that the walk found.

    Attributes:
        path: the way to it, such as `encoder.parts[0].net`.
        value: a Tensor, a numpy array, a torch Module (its parts follow), a simple value, a Name or a Code.
    """

    path: str
    value: object


@dataclass(frozen=True)
class Reach:
    """The objects that an object can reach, the nearest first, and the user's modules that define their classes."""

    held: tuple[HeldObject, ...]
    modules: frozenset[str]


def reach(root: object, name: str = "encoder", own: Collection[str] = ()) -> Reach:
    """Finds everything that an object can reach, itself included.

    Args:
        root: the object to start from.
        name: its name in the paths.
        own: top-level modules of installed plugins that count as the user's own code.

    Raises:
        RLBenchError: it reaches more than a million objects.
    """
    walk = _Walk(frozenset(own))
    return Reach(tuple(walk.walk(name, root)), frozenset(walk.modules))


@dataclass
class _Walk:
    own: frozenset[str]
    modules: set[str] = field(default_factory=set)
    seen: dict[int, tuple[object, str]] = field(default_factory=dict)  # with the objects, so that none is freed

    def walk(self, name: str, root: object) -> Iterator[HeldObject]:
        left = deque([(name, root)])
        while left:
            path, value = left.popleft()
            if isinstance(value, _SIMPLE):
                yield HeldObject(path, value)
                continue
            if id(value) in self.seen:
                yield HeldObject(path, Name(f"see {self.seen[id(value)][1]}"))
                continue
            self.seen[id(value)] = value, path
            if len(self.seen) > LIMIT:
                raise RLBenchError(f"{name} holds more than a million objects, such as {path}; store data in tensors")
            yield HeldObject(path, self.represent(value))
            left.extend(self.parts(path, value))

    def represent(self, value: object) -> object:
        """The `HeldObject.value` of an object."""
        if isinstance(value, Tensor | nn.Module) or (isinstance(value, np.ndarray) and value.dtype != object):
            return value
        if isinstance(value, FunctionType) and self.is_own(value.__globals__.get("__name__")):
            return Code(value.__qualname__, sources.code_hash(value.__code__))
        if isinstance(value, type | ModuleType) or (callable(value) and isinstance(_name(value), str)):
            return Name(self.label(value))
        if isinstance(value, _TABLES) and _are_plain(value.keys()) and _are_plain(value.values()):
            return Name(f"{self.label(type(value))} {dict(value)!r}")
        if isinstance(value, _ROWS) and _are_plain(value):
            rows = sorted(map(repr, value)) if isinstance(value, set | frozenset) else list(value)
            return Name(f"{self.label(type(value))} {rows!r}")
        return Name(self.label(type(value)))

    def label(self, value: Any) -> str:
        """The name of a class or function; without its module if that is the user's or rlbench's, which may move."""
        module = getattr(value, "__module__", None)
        own = str(module).partition(".")[0] == "rlbench" or self.is_own(module)
        return str(_name(value)) if own else f"{module}.{_name(value)}"

    def is_own(self, module: object) -> bool:
        if not isinstance(module, str) or not (module.partition(".")[0] in self.own or sources.is_own(module)):
            return False
        self.modules.add(module)
        return True

    def parts(self, path: str, value: Any) -> Places:
        """The parts of an object, with their paths."""
        if isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, Tensor | ModuleType):
            return
        elif isinstance(value, np.ndarray):
            yield from ((f"{path}[{k}]", one) for k, one in enumerate(value.ravel()) if value.dtype == object)
        elif isinstance(value, nn.Module):
            yield from self._module(path, value)
        elif isinstance(value, FunctionType):
            yield from self._function(path, value)
        elif (inner := _unwrap(value)) is not None:
            yield from ((f"{path}.{name}", part) for name, part in inner)
        elif isinstance(value, _TABLES):
            yield from self._table(path, value)
        elif isinstance(value, _ROWS):
            plain = _are_plain(value)
            keys = [""] * len(value) if isinstance(value, set | frozenset) else [str(k) for k in range(len(value))]
            yield from ((f"{path}[{k}]", one) for k, one in zip(keys, value, strict=True) if not plain)
            yield from _fields(path, value)
        else:
            yield from self._object(path, value)

    def _table(self, path: str, value: Mapping[Any, Any]) -> Places:
        if not (_are_plain(value.keys()) and _are_plain(value.values())):
            for k, (key, one) in enumerate(value.items()):
                simple = isinstance(key, _SIMPLE)
                yield f"{path}[{key!r}]" if simple else f"{path}[{k}]", one
                if not simple:
                    yield f"{path}.keys[{k}]", key
        yield from _fields(path, value)

    def _module(self, path: str, value: nn.Module) -> Places:
        if isinstance(value, torch.jit.ScriptModule):
            yield from ((f"{path}.{name}", one) for name, one in value.state_dict().items())
            yield f"{path}.code", str(getattr(value, "code", ""))
            return
        held = vars(value)
        for kind in _TOWERS:
            for key, one in held.get(kind, {}).items():
                if one is not None:
                    yield f"{path}[{key}]" if key.isdigit() else f"{path}.{key}", one
        for kind in _HOOKS:
            yield from ((f"{path}.{kind}[{k}]", one) for k, one in enumerate(held.get(kind, {}).values()))
        yield from ((f"{path}.{key}", one) for key, one in held.items() if key not in _TORCH)
        yield f"{path}.class", type(value)

    def _function(self, path: str, value: FunctionType) -> Places:
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f"{path}.{name}", cell.cell_contents
            except ValueError:
                continue  # not bound yet
        yield from ((f"{path}.defaults[{k}]", one) for k, one in enumerate(value.__defaults__ or ()))
        yield from ((f"{path}.defaults[{k}]", one) for k, one in (value.__kwdefaults__ or {}).items())
        yield from ((f"{path}.{key}", one) for key, one in vars(value).items())
        if self.is_own(value.__globals__.get("__name__")):
            yield from self._globals(value)

    def _globals(self, value: FunctionType) -> Places:
        """The globals that a user's function uses, of its module and of the user's modules that its module imports."""
        names, module = sorted(set(_names(value.__code__))), str(value.__globals__.get("__name__"))
        for name in (n for n in names if n in value.__globals__):
            one = value.__globals__[name]
            if isinstance(one, ModuleType) and self.is_own(one.__name__):
                for inner in (n for n in names if n in vars(one)):
                    yield from self._global(one.__name__, inner, vars(one)[inner])
            elif not isinstance(one, ModuleType):
                yield from self._global(module, name, one)

    def _global(self, module: str, name: str, one: object) -> Places:
        """A global; if it starts empty and fills later, as a cache does, only the torch modules in it."""
        if isinstance(one, dict | list | set) and sources.starts_empty(module, name):
            yield from _modules_in(name, one)
        else:
            yield name, one

    def _class(self, value: type) -> Places:
        """Attributes of a user's own classes; of containers, which may fill, only the torch modules in them."""
        for cls in (c for c in value.__mro__ if self.is_own(c.__module__)):
            for key, one in vars(cls).items():
                if key in _CLASS or key.startswith(_GENERATED):
                    continue
                if isinstance(one, dict | list | set):
                    yield from _modules_in(f"{cls.__qualname__}.{key}", one)
                elif type(one).__name__ != "member_descriptor":
                    yield f"{cls.__qualname__}.{key}", one

    def _object(self, path: str, value: Any) -> Places:
        if isinstance(value, torch.Generator):
            yield f"{path}.state", value.get_state()
        elif isinstance(value, np.random.Generator):
            yield f"{path}.state", repr(value.bit_generator.state)
        elif isinstance(value, random.Random):
            yield f"{path}.state", hash(value.getstate())
        top = type(value).__module__.partition(".")[0]
        if (top in _CLOSED or top in sys.stdlib_module_names) and not isinstance(value, _OPEN):
            state = getattr(value, "state_dict", None) if top == "torch" else None
            yield from [(f"{path}.state_dict", state() if callable(state) else state)] if state is not None else []
            return
        yield from _fields(path, value)
        yield f"{path}.class", type(value)


def _name(value: Any) -> object:
    return getattr(value, "__qualname__", None) or getattr(value, "__name__", None)


def _are_plain(values: Collection[object]) -> bool:
    return all(type(value) in _PLAIN for value in values)


def _fields(path: str, value: Any) -> Places:
    """Attributes and slots."""
    yield from ((f"{path}.{key}", one) for key, one in (getattr(value, "__dict__", None) or {}).items())
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for key in (slots,) if isinstance(slots, str) else slots:
            attribute = f"_{cls.__name__.lstrip('_')}{key}" if key.startswith("__") and not key.endswith("__") else key
            if key not in ("__dict__", "__weakref__") and hasattr(value, attribute):
                yield f"{path}.{key}", getattr(value, attribute)


def _unwrap(value: Any) -> list[tuple[str, object]] | None:
    """The parts of a wrapper around a function, by name; None if the value is no such wrapper."""
    if isinstance(value, functools.partial | functools.partialmethod):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, MethodType):
        return [("self", value.__self__), ("func", value.__func__)]
    if isinstance(value, BuiltinFunctionType):
        bound = value.__self__
        return [] if bound is None or isinstance(bound, ModuleType) else [("self", bound)]
    names = {property: "fget", staticmethod: "__func__", classmethod: "__func__", functools.cached_property: "func"}
    name = next((name for kind, name in names.items() if isinstance(value, kind)), "")
    name = "__wrapped__" if isinstance(value, functools._lru_cache_wrapper) else name
    return [("func", getattr(value, name))] if name else None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _modules_in(path: str, value: Any) -> Places:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    yield from ((f"{path}[{key!r}]", one) for key, one in items if isinstance(one, nn.Module))
