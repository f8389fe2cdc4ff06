"""The accuracy of a fused model by the number of its sensors that are attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from rlbench.core.badges import worst_badge
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards.scores import Score


def count_attacked(sensors: Sequence[str], clean: Score | None, row: Mapping[str, Score]) -> dict[int, Score]:
    """The accuracy by the number j of attacked sensors: the worst case, per example, over all sets of j.

    0 is the clean accuracy, 1 is `any 1`, the number of sensors is `all`; another one is there if each set of as many
    sensors was attacked.

    Args:
        sensors: of the task.
        clean: the fused clean score.
        row: of an attack, by the sensors that it happens to.
    """
    known = {0: clean, 1: row.get("any 1"), len(sensors): row.get("all")}
    for j in range(1, len(sensors)):
        sets = [row.get("+".join(some)) for some in combinations(sensors, j)]
        known[j] = known.get(j) or _worst([score for score in sets if score is not None], len(sets))
    return {j: score for j, score in sorted(known.items()) if score is not None and score.error is None}


def _worst(scores: Sequence[Score], wanted: int) -> Score | None:
    """The worst case per example over as many scores as wanted; None where one is missing or has no flags."""
    hits = [score.hits for score in scores if score.hits is not None]
    if len(hits) < wanted:
        return None
    worst, deff = np.min(hits, axis=0), max(score.deff for score in scores)
    share, independent = fmean(worst), max(1, round(len(worst) / deff))
    badge = worst_badge(score.soundness for score in scores)
    return Score(share, *wilson(share * independent, independent), hits=worst, deff=deff, soundness=badge)
