"""What a user's encoder prints does not reach the JSON on stdout, also not from a process that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import os, sys
import click
from rlbench.cli.replies import reserve_stdout

@click.command()
@click.pass_context
def command(context):
    reply = reserve_stdout(context)
    print("from the encoder")
    sys.stdout.flush()
    os.system("echo from a child")
    click.echo('["reply"]', file=reply)

command(standalone_mode=False)
print()
"""


def test_only_the_reply_reaches_stdout() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == ["reply"] and done.stdout.endswith("\n\n")  # stdout is restored afterwards
    assert "from the encoder" in done.stderr and "from a child" in done.stderr
