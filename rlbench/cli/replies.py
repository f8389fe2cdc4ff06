"""The reply of a command on stdout, apart from what a user's own code prints while the command computes."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from typing import TextIO

import click


def reserve_stdout(context: click.Context) -> TextIO:
    """Sends what this process and its children print to stderr until the command ends.

    Args:
        context: of the command.

    Returns:
        The stdout for the reply, such as JSON that another program reads.
    """
    stdout = sys.stdout
    context.with_resource(redirect_stdout(sys.stderr))
    try:
        number, other = stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # a stream of a test or notebook, which no child inherits
        return stdout
    stdout.flush()
    reply = open(os.dup(number), "w", encoding=stdout.encoding, errors="replace")  # noqa: SIM115 - closed by the context
    os.dup2(other, number)
    context.call_on_close(reply.close)  # last: the calls are made in reverse order
    context.call_on_close(lambda: os.dup2(reply.fileno(), number))
    return reply
