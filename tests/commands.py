"""A suite and checks for tests of the command line."""

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

MINE = """suite: mine
version: 1
summary: Blobs.
modality: image
task: {name: blobs}
examples: 96
seed: 0
perturbations:
  - clean
  - {attack: [fgsm, pgd], norm: linf, eps: [2/255, 4/255, 8/255]}
  - {attack: apgd-t, norm: linf, eps: 4/255}
  - {attack: pgd, norm: l2, eps: 0.1}
  - worst
"""
Call = Callable[..., Result]
RUN = ("run", "--model", "linear", "--workers", 1, "--examples", 16)


def fails(result: Result, *words: str, untouched: Path | None = None) -> None:
    """Asserts exit 2, one line on stderr with these words, nothing on stdout, and no `untouched` path."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("rlbench: "), result.stderr
    for word in words:
        assert word in lines[0], lines[0]
    assert result.stdout == ""
    assert untouched is None or not untouched.exists()
