"""Calls a user's MODULE:CALLABLE, found on Python's path or in the working directory.

The working directory is not on Python's path. Only a module that the user names, and what it imports from its own
folder, is looked up there, after everything that is installed, so that it shadows nothing.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from rlbench.core.errors import RLBenchError, first_line, suggest
from rlbench.core.sources import find_local_modules

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_PYTHONPATH = "its folder must be the working directory or on PYTHONPATH, such as PYTHONPATH=FOLDER rlbench run ..."


class _Beside:
    """An import finder for one folder, asked last: finds every module while `open`, later only those in `names`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.open = folder, False
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if path is not None or not (self.open or name in self.names):
            return None
        return PathFinder.find_spec(name, [str(self.folder)])


def is_callable_name(name: str) -> bool:
    """Whether a name has the form MODULE:CALLABLE."""
    return _FORM.fullmatch(name) is not None


def is_importable(name: str) -> bool:
    """Whether the top-level module of MODULE:CALLABLE can be found; imports nothing."""
    top = re.split(r"[.:]", name)[0]
    return top in sys.modules or _find_spec(top) is not None or _find_spec(top, Path.cwd()) is not None


def _find_spec(top: str, folder: Path | None = None) -> ModuleSpec | None:
    importlib.invalidate_caches()
    if folder is not None:
        return PathFinder.find_spec(top, [str(folder)])
    for finder in (f for f in sys.meta_path if not isinstance(f, _Beside)):
        spec = finder.find_spec(top, None, None)
        if spec is not None:
            return spec
    return None


@contextmanager
def _search_here(top: str) -> Iterator[None]:
    """Finds all modules of the working directory inside the block; later only `top` and what it may still import."""
    here = next((finder for finder in sys.meta_path if isinstance(finder, _Beside)), None)
    if here is None or here.folder != Path.cwd():
        if here is not None:
            _forget(here)
        here = _Beside(Path.cwd())
        sys.meta_path.append(here)
    here.open = True
    try:
        yield
    finally:
        here.open = False
        here.names |= {name.partition(".")[0] for name in find_local_modules(top)} | {top}


def _forget(finder: _Beside) -> None:
    """Unloads a folder's modules, since another working directory may have modules of the same names."""
    sys.meta_path.remove(finder)
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], Path(getattr(module, "__file__", None) or "/")
        if top not in finder.names or not file.is_relative_to(finder.folder):
            continue
        if file.relative_to(finder.folder).parts[0].partition(".")[0] == top:  # not of a folder in it on Python's path
            del sys.modules[name]


def call(source: str) -> Any:
    """Calls MODULE:CALLABLE without arguments and returns its result.

    Raises:
        RLBenchError: there is no such module or callable, the import or the call fails, or it needs arguments.
    """
    name, _, attribute = source.partition(":")
    with _search_here(name.partition(".")[0]):
        module = _import(name)
        make = getattr(module, attribute, None)
        if not callable(make):
            names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            hint = _explain_shadowing(module) or suggest(attribute, names)
            raise RLBenchError(f"{source}: {_place(module)} has no callable {attribute!r}{hint}")
        _check_signature(make, source)
        try:
            return make()
        except RLBenchError as error:
            raise RLBenchError(f"{source}: {error}") from error
        except (Exception, SystemExit) as error:
            raise RLBenchError(f"{source} raised {describe_raised(error)}") from error


def _import(name: str) -> ModuleType:
    if name == "__main__":
        raise RLBenchError(
            "an encoder of a script or notebook can't be made in another process; write it to a file such as "
            "my_encoder.py, and name it my_encoder:make"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise RLBenchError(f"{name!r} can't be imported: {describe_raised(error)}") from error
        parent, _, last = error.name.rpartition(".")
        shadowing = _explain_shadowing(sys.modules[parent]) if parent in sys.modules else ""
        near = suggest(last, [path.stem for path in Path.cwd().glob("*.py")])
        what = f"{parent} has no module {last!r}{shadowing}"
        what = what if parent else f"there is no module {last!r}{near or f'; {_PYTHONPATH}'}"
        hint = "; name the module without .py" if last == "py" else ""
        raise RLBenchError(f"{name!r} can't be imported: {what}{hint}") from error
    except (Exception, SystemExit) as error:
        raise RLBenchError(f"{name!r} can't be imported: {describe_raised(error)}") from error


def describe_raised(error: BaseException) -> str:
    """An error's type and first line, and where the user's code raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({Path(error.filename).name}, line {error.lineno})"
    line = error.msg if isinstance(error, SyntaxError) else first_line(error)
    return f"{type(error).__name__}{where if line == type(error).__name__ else f': {line}{where}'}"


def _check_signature(make: Callable[..., object], source: str) -> None:
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(make).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return  # a builtin without a signature
    if needed:
        raise RLBenchError(
            f"{source} needs {', '.join(needed)}, and is called without arguments; name a function that needs none"
        )


def _place(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"{module.__name__} ({file})" if file else module.__name__


def _explain_shadowing(module: ModuleType) -> str:
    """A hint if this installed module hides one of the same name in the working directory, else ""."""
    here = _find_spec(module.__name__.partition(".")[0], Path.cwd())
    own = here is not None and here.origin not in (None, getattr(module, "__file__", None))
    return "; it hides the module of that name in the working directory: rename that" if own else ""
