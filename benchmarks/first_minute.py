"""The first minute: what README's first command shows.

    pip install pyte && python benchmarks/first_minute.py > benchmarks/first_minute.md

A terminal of 100 columns and 30 lines after 1, 5, 10 and 20 seconds and at the end; then the same command with its
output in a pipe, each line with the seconds after which it came. The store is empty at the start of both.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from time import monotonic

import click
import pyte

from rlbench.core.processes import processors

COLUMNS, LINES = 100, 30
MOMENTS = (1, 5, 10, 20)  # seconds after the start of which the screen is kept
COMMAND = ("run", "--suite", "thermal", "--model", "rlbind")


def record_terminal(folder: str) -> Iterator[tuple[float, str]]:
    """Runs the command in a terminal; yields the seconds and the text of each frame, the last one at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, begun = _start(folder, theirs), monotonic()
    os.close(theirs)
    waiting = list(MOMENTS)
    while True:
        left = waiting[0] - (monotonic() - begun) if waiting else None
        ready, _, _ = select.select([ours], [], [], None if left is None else max(left, 0.0))
        if not ready:
            yield waiting.pop(0), _text(screen)
            continue
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of file
            part = b""
        if not part:
            break
        stream.feed(part)
    process.wait()
    os.close(ours)
    yield monotonic() - begun, _text(screen)


def record_pipe(folder: str) -> Iterator[tuple[float, str]]:
    """Runs the command with its output in a pipe; yields the seconds and the text of each line."""
    process, begun = _start(folder, subprocess.PIPE), monotonic()
    assert process.stdout is not None
    for line in process.stdout:
        yield monotonic() - begun, line.decode().rstrip()
    process.wait()


def _start(folder: str, out: int) -> subprocess.Popen[bytes]:
    hidden = ("COLUMNS", "LINES", "NO_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"TERM": "xterm-256color"}
    words = [sys.executable, "-m", "rlbench", *COMMAND]
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)


def _text(screen: pyte.Screen) -> str:
    return "\n".join(line.rstrip() for line in screen.display).rstrip()


def main() -> None:
    """Prints the page."""
    click.echo("# The first minute\n\n`python benchmarks/first_minute.py`, on " + f"{processors()} CPU cores.\n")
    click.echo((__doc__ or "").split("\n\n", 2)[2].strip() + "\n")
    click.echo(f"`rlbench {' '.join(COMMAND)}`")
    with tempfile.TemporaryDirectory() as folder:
        frames = list(record_terminal(folder))
    for k, (seconds, text) in enumerate(frames, 1):
        title = f"After {seconds:.0f} s" + (", at the end" if k == len(frames) else "")
        click.echo(f"\n## {title}\n\n```text\n{text}\n```")
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{seconds:5.1f}  {text}".rstrip() for seconds, text in record_pipe(folder)]
    click.echo("\n## In a pipe\n\n```text\n" + "\n".join(lines) + "\n```")


if __name__ == "__main__":
    main()
