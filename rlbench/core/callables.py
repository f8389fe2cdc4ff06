"""A user's callable by the name MODULE:CALLABLE, from Python's path or from the working directory.

The working directory is no part of Python's path: only a module that the user names is looked up there, and only after
everything that is installed, so that it hides nothing; and only what that module imports from beside it is found.
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

from rlbench.core.errors import RLBenchError, first_line
from rlbench.core.sources import beside

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_PYTHONPATH = "its folder must be the working directory or on PYTHONPATH, such as PYTHONPATH=FOLDER rlbench run ..."


class _Beside:
    """A finder, after all others, of modules of one folder: any while `open`, and then those in `names`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.open = folder, False
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if path is not None or not (self.open or name in self.names):
            return None
        return PathFinder.find_spec(name, [str(self.folder)])


def is_form(name: str) -> bool:
    """Whether a name is MODULE:CALLABLE by its letters."""
    return _FORM.fullmatch(name) is not None


def is_there(name: str) -> bool:
    """Whether the top-level module of MODULE:CALLABLE can be found; nothing is imported."""
    top = re.split(r"[.:]", name)[0]
    return top in sys.modules or _spec(top) is not None or _spec(top, Path.cwd()) is not None


def _spec(top: str, folder: Path | None = None) -> ModuleSpec | None:
    importlib.invalidate_caches()
    if folder is not None:
        return PathFinder.find_spec(top, [str(folder)])
    for finder in (f for f in sys.meta_path if not isinstance(f, _Beside)):
        spec = finder.find_spec(top, None, None)
        if spec is not None:
            return spec
    return None


@contextmanager
def _opened(top: str) -> Iterator[None]:
    """Modules of the working directory are found inside; afterwards those that are in use or may still be imported."""
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
        here.names |= {name.partition(".")[0] for name in beside(top)} | {top}


def _forget(finder: _Beside) -> None:
    """Takes a folder's modules out of use: those of another working directory may have the same names."""
    sys.meta_path.remove(finder)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in finder.names and file and Path(file).is_relative_to(finder.folder):
            del sys.modules[name]


def call(source: str) -> Any:
    """What the callable of `MODULE:CALLABLE` returns, called without arguments.

    Raises: RLBenchError: there is no such module or callable; the import or the call fails; it needs arguments.
    """
    name, _, attribute = source.partition(":")
    with _opened(name.partition(".")[0]):
        module = _imported(name)
        make = getattr(module, attribute, None)
        if not callable(make):
            raise RLBenchError(f"{source}: {_place(module)} has no callable {attribute!r}{_hidden(module)}")
        _check_signature(make, source)
        try:
            return make()
        except RLBenchError as error:
            raise RLBenchError(f"{source}: {error}") from error
        except (Exception, SystemExit) as error:
            raise RLBenchError(f"{source} raised {_said(error)}") from error


def _imported(name: str) -> ModuleType:
    if name == "__main__":
        raise RLBenchError(
            "an encoder of a script or notebook can't be made in another process; write it to a file such as "
            "my_encoder.py, and name it my_encoder:make"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise RLBenchError(f"{name!r} can't be imported: {_said(error)}") from error
        parent, _, last = error.name.rpartition(".")
        hidden = _hidden(sys.modules[parent]) if parent in sys.modules else ""
        what = f"{parent} has no module {last!r}{hidden}" if parent else f"there is no module {last!r}; {_PYTHONPATH}"
        written = "; name the module without .py" if last == "py" else ""
        raise RLBenchError(f"{name!r} can't be imported: {what}{written}") from error
    except (Exception, SystemExit) as error:
        raise RLBenchError(f"{name!r} can't be imported: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """An error's type and first line, and where it was raised in the code that was asked for."""
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
        return  # a builtin that does not tell
    if needed:
        raise RLBenchError(
            f"{source} needs {', '.join(needed)}, and is called without arguments; name a function that needs none"
        )


def _place(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"{module.__name__} ({file})" if file else module.__name__


def _hidden(module: ModuleType) -> str:
    """A word on a module of the working directory that an installed one of the same name hides."""
    here = _spec(module.__name__.partition(".")[0], Path.cwd())
    own = here is not None and here.origin not in (None, getattr(module, "__file__", None))
    return "; it hides the module of that name in the working directory: rename that" if own else ""
