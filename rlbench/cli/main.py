"""The command `rlbench`: its commands, and how it reports a user's mistakes.

No command module imports torch at its top, so that `rlbench --help` is fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM, EPIPE
from io import TextIOWrapper
from typing import Any

import click

from rlbench.cli.audit import audit
from rlbench.cli.board import leaderboard, plot
from rlbench.cli.catalogue import data, list_
from rlbench.cli.corrupt import corrupt
from rlbench.cli.doctor import doctor
from rlbench.cli.entries import entry, verify
from rlbench.cli.gate import check, compare
from rlbench.cli.merge import merge, merge_weights
from rlbench.cli.new import new
from rlbench.cli.push import push
from rlbench.cli.report import report
from rlbench.cli.run import run, show
from rlbench.cli.train import campaign, train
from rlbench.core.documents import expand_user
from rlbench.core.errors import RLBenchError, find_hidden, one_line, quote
from rlbench.core.processes import check_here, open_streams

ARGUMENT = 4096  # characters
LIMITS = (EAGAIN, EMFILE, ENFILE, ENOMEM)  # too many processes, too many files, too little memory to start one


class Mistake(click.ClickException):
    """A user's mistake: one line on stderr, exit 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"rlbench: {one_line(self.message)}", err=True)


class Tool(click.Group):
    """Reports a user's mistake in one line with exit 2, Ctrl-C with exit 130, and a closed pipe with exit 141.

    A mistake is an RLBenchError, a usage error of click, or an OSError about a file; a bug keeps its traceback.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        open_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # prints ? for a letter that the locale lacks
                stream.reconfigure(errors="replace")
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _mistakes():
            return super().make_context(*args, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for arg in args:
            if not arg.strip():
                raise Mistake("an argument is empty; is a shell variable unset?")
            if find_hidden(arg) or len(arg) > ARGUMENT:
                raise Mistake(f"{quote(arg)}: an argument must be one line of UTF-8 of at most {ARGUMENT} characters")
            if arg.startswith("~"):  # the shell did not expand it: no such user
                expand_user(arg)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _mistakes():
                check_here()
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except KeyboardInterrupt:
            click.echo("rlbench: interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # the reader of the output has ended, such as `head`; exit 1 would be a regression
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            ctx.exit(141)


@contextmanager
def _mistakes() -> Iterator[None]:
    try:
        yield
    except RLBenchError as error:
        raise Mistake(str(error)) from error
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "rlbench"
        raise Mistake(f"{error.format_message().rstrip('.')}; see {command} --help") from None
    except OSError as error:
        if error.errno == EPIPE:
            raise
        if error.errno in LIMITS:
            raise Mistake(
                f"{error.strerror}: a limit of this shell (ulimit -a); raise it, or use --workers 1"
            ) from error
        what = "stdout" if error.filename is None else quote(str(error.filename))
        raise Mistake(f"can't use {what}: {error.strerror or error}") from error


@click.group(
    cls=Tool,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="rlbind-bench", message="rlbench %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Measure how robust language-anchored multi-modal encoders are to attacks and corruptions.

    \b
    rlbench list suites                           list the suites
    rlbench run --suite thermal --model rlbind    print a robustness table
    rlbench show thermal                          draw its examples
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (
    audit,
    campaign,
    check,
    compare,
    corrupt,
    data,
    doctor,
    entry,
    leaderboard,
    list_,
    merge,
    merge_weights,
    new,
    plot,
    push,
    report,
    run,
    show,
    train,
    verify,
):
    main.add_command(command)
