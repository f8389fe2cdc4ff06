"""The options that say where jobs run and where records are, of several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rlbench.cli.options import Count

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--workers", type=Count(1), metavar="N", help="Workers [default: one per GPU or CPU core]."),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:K",
        help="Where to compute; cuda means every visible GPU.",
    ),
    click.option(
        "--executor",
        default="local",
        show_default=True,
        metavar="local|ray",
        help="Where the workers run: on this machine, or on a Ray cluster.",
    ),
    click.option(
        "--address",
        metavar="auto|HOST:PORT",
        help="Use the Ray cluster at this address [default: start Ray on this machine].",
    ),
)

records_option = click.option(
    "--records",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A result store or .jsonl file; repeatable [default: rlbench-results].",
)


def place_options(command: F) -> F:
    """Adds --workers, --device, --executor and --address to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
