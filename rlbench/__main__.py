"""`python -m rlbench` is the command `rlbench`."""

import os
import sys
from contextlib import suppress

with suppress(OSError):  # the working directory was removed
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]  # the working directory, which may be a downloaded folder: nothing in it is to be imported

from importlib.util import find_spec

from rlbench.cli.main import main

if __name__ == "__main__":
    if find_spec("rlbench.suites") is None:  # the working directory's sources hide the installed package
        sys.exit("rlbench: python found the sources in this folder, without their suites; use the command `rlbench`")
    main(prog_name="rlbench")
