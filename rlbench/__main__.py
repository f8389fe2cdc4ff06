"""`python -m rlbench` is the command `rlbench`."""

import sys
from importlib.util import find_spec

from rlbench.cli import main

if __name__ == "__main__":
    if find_spec("rlbench.suites") is None:  # the working directory's sources hide the installed package
        sys.exit("rlbench: python found the sources in this folder, without their suites; use the command `rlbench`")
    main(prog_name="rlbench")
