"""`rlbench doctor`: what of the installation works, as text for a bug report, with the remedy for what does not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

PACKAGES = {  # by distribution, the module that is imported
    **{"numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "torch": "torch", "transformers": "transformers"},
    **{"huggingface-hub": "huggingface_hub", "safetensors": "safetensors", "torchattacks": "torchattacks"},
    **{"PyYAML": "yaml", "rich": "rich", "matplotlib": "matplotlib", "pillow": "PIL", "av": "av"},
    **{"soundfile": "soundfile", "pyarrow": "pyarrow", "accelerate": "accelerate", "peft": "peft"},
}
LAZY = {"transformers", "peft", "accelerate", "torchattacks"}  # importing them takes seconds: only their versions
OPTIONAL = {"open_clip_torch": "pip install 'rlbind-bench[open-clip]' adds the models of open_clip"}
LIBRARIES = "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless in place of opencv-python"
SPACE, MEMORY = 2.0, 2.0  # GB that a run needs at least


@dataclass(frozen=True)
class Line:
    """A line of the report.

    Attributes:
        what: was checked.
        found: was found.
        remedy: what to do if it does not work; "" if it does.
    """

    what: str
    found: str
    remedy: str = ""


@click.command(short_help="Check the installation and print a report for issues.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="rlbench-results", show_default=True, help="The store to check."
)
def doctor(out: Path) -> None:
    """Check versions, devices, libraries, folders and data sets; exit 1 if something does not work.

    Each line that begins with BROKEN is followed by its remedy. Paste the output into an issue.
    """
    broken = 0
    for check in (_versions, _devices, _libraries, _plugins, _hub, lambda: _store(out), _data, _terminal):
        for line in _safely(check):
            broken += bool(line.remedy)
            click.echo(f"{'BROKEN' if line.remedy else 'ok':7} {line.what}: {line.found}")
            if line.remedy:
                click.echo(f"{'':7} -> {line.remedy}")
    click.echo(f"{broken} broken" if broken else "everything works")
    if broken:
        raise click.exceptions.Exit(1)


def _safely(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a check; an error of the check itself is a line."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken package raises
        name = getattr(check, "__name__", "check").strip("_")
        yield Line(name, _describe(error), "install rlbench again in a new virtual environment")


def _describe(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:200]}".rstrip(": ")


def _versions() -> Iterator[Line]:
    yield Line("rlbench", f"{version('rlbind-bench')} in {Path(__file__).parents[1]}")
    python = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    yield Line("python", python, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")
    for package, module in PACKAGES.items():
        yield _package(package, module)
    for package, how in OPTIONAL.items():
        try:
            yield Line(package, version(package))
        except PackageNotFoundError:
            yield Line(package, f"not installed; {how}")


def _package(package: str, module: str) -> Line:
    """The version of an installed package, which must be importable unless it is one of LAZY."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return Line(package, "not installed", f"pip install {package}")
    try:
        if package not in LAZY:
            import_module(module)
    except Exception as error:  # also OSError, where a shared library is missing
        return Line(
            package, f"{found} can't be imported: {_describe(error)}", f"pip install --force-reinstall {package}"
        )
    return Line(package, found)


def _devices() -> Iterator[Line]:
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = memory.available / 1e9
    remedy = "" if free >= MEMORY else "close other programs, or run with --workers 1"
    yield Line("cpu", f"{cores} cores, {free:.1f} of {memory.total / 1e9:.1f} GB memory available", remedy)
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        yield Line("gpu", f"none that torch can use ({f'torch for CUDA {built}' if built else 'torch without CUDA'})")
    for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        one = torch.cuda.get_device_properties(k)
        yield Line(f"gpu {k}", f"{one.name}, {one.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")


def _libraries() -> Iterator[Line]:
    """OpenCV, which needs system libraries that slim images lack."""
    try:
        cv2 = import_module("cv2")
    except Exception as error:  # ImportError: libGL.so.1 is missing
        yield Line("opencv", f"can't be imported: {_describe(error)}; corruptions of images need it", LIBRARIES)
    else:
        yield Line("opencv", str(cv2.__version__))


def _plugins() -> Iterator[Line]:
    from rlbench.core.registry import VARIABLE, entries
    from rlbench.core.suite import suites

    own = os.environ.get(VARIABLE)
    try:
        yield Line("plugins", f"{len(entries())} names{f', {VARIABLE}={own}' if own else ''}; {len(suites())} suites")
    except Exception as error:
        yield Line("plugins", _describe(error), "uninstall or mend the package that this names")


def _hub() -> Iterator[Line]:
    from rlbench.core.files import find_cache_folder

    names = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "RLBENCH_CACHE")
    set_ = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Line("environment", ", ".join(set_) or "no variables of the hub are set: models are downloaded when needed")
    constants = import_module("huggingface_hub.constants")
    yield _folder("hub cache", Path(constants.HF_HUB_CACHE), "set HF_HOME to a folder that you can write")
    yield _folder("rlbench cache", find_cache_folder(), "set RLBENCH_CACHE to a folder that you can write")


def _store(out: Path) -> Iterator[Line]:
    yield _folder("store", out.absolute(), "go to a folder that you can write, or give --out to rlbench run")


def _folder(what: str, folder: Path, remedy: str) -> Line:
    """Whether a file can be written to a folder, or to the nearest one above it that exists."""
    near = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
        free = shutil.disk_usage(near).free / 1e9
    except OSError as error:
        return Line(what, f"{folder} can't be written: {error.strerror}", remedy)
    if free < SPACE:
        return Line(what, f"{folder} has {free:.1f} GB free", f"free some space; {remedy}")
    return Line(what, f"{folder} is writable, {free:.0f} GB free{'' if near == folder else ', not made yet'}")


def _data() -> Iterator[Line]:
    """Which published data sets are complete in RLBENCH_DATA, by their file lists; checksums are not computed."""
    root = os.environ.get("RLBENCH_DATA")
    if not root:
        yield Line("RLBENCH_DATA", "not set: published data sets need it, the bundled suites do not")
        return
    if not Path(root).is_dir():
        yield Line("RLBENCH_DATA", f"{root} is no folder", "set it to the folder of the data sets, or unset it")
        return
    from rlbench.tasks.integrity import count_files, list_data_sets

    present = {n: one for n, one in list_data_sets().items() if (Path(root) / one.source.folder).is_dir()}
    yield Line("RLBENCH_DATA", f"{root}; published data sets in it: {len(present)}")
    for name in present:
        found = count_files(name)
        remedy = "" if found.good is not False else f"rlbench data check {name} says what is missing"
        yield Line(f"data {name}", found.found, remedy)


def _terminal() -> Iterator[Line]:
    if not sys.stdout.isatty():
        yield Line("terminal", "none: output goes to a file or pipe, so tables are plain text")
        return
    from rich.console import Console

    out = Console()
    yield Line("terminal", f"{out.width} x {out.height}, colour {out.color_system or 'none'}, {sys.stdout.encoding}")
