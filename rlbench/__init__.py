"""rlbench: a robustness benchmark for language-anchored multi-modal encoders.

    rlbench.run("thermal", "rlbind")                        # records of a suite, resumed from rlbench-results/
    rlbench.leaderboard.load("rlbench-results")             # the same as a pandas.DataFrame
    rlbench.load_suite("thermal")                           # a Suite: task and perturbations
    rlbench.load_encoder("rlbind", "thermal")               # an Encoder with frozen weights
    rlbench.attack(classifier, x, y, "apgd-ce", eps="4/255")  # attack any classifier

Names are imported at first use: `import rlbench` imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlbench.core.suite import load_suite
    from rlbench.encoders.models import load_encoder
    from rlbench.engine.attack.api import attack
    from rlbench.engine.run.runner import run
    from rlbench.report.boards import leaderboard

    __version__: str

__all__ = ["__version__", "attack", "leaderboard", "load_encoder", "load_suite", "run"]

_HOMES = {
    "attack": "rlbench.engine.attack.api",
    "load_encoder": "rlbench.encoders.models",
    "load_suite": "rlbench.core.suite",
    "run": "rlbench.engine.run.runner",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("rlbind-bench")
    if name == "leaderboard":
        return import_module("rlbench.report.boards.leaderboard")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rlbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
