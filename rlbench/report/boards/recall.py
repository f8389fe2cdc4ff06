"""Tables of retrieval recalls: R@1, R@5 and R@10 in both directions.

A recall is exact, or a bound under attack, or among the evaluated part of a gallery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rlbench.core import Perturbation
from rlbench.core.markdown import grid
from rlbench.core.threat import threat_of
from rlbench.report.boards.scores import describe_distinction, mark_name
from rlbench.report.boards.tables import Cell, models, parts
from rlbench.store.perturbations import is_bound

RECALL = re.compile(r"^(?P<way>x-to-[a-z]+|[a-z]+-to-x) (?P<what>R@\d+|median rank)(?P<part> of \d+)?$")
READING = (
    "Recalls in %, of media to captions (x-to-text) and of captions to media (text-to-x). Clean and corrupted ones are "
    "exact. Under attack the robust recall is exact, x-to-text R@1 unless the task says another; `≤` is a bound from "
    "above, since the attack does not try to lower that recall further. Intervals of the robust recall stand above."
)
ACROSS = (
    "Where the gallery is another sensor's, such as x-to-image, recalls are of the very scene. A task that asks for "
    "the first hit's class attacks that, so that its recalls of the scene are bounds."
)
PARTIAL = (
    "`of k`: captions ranked among the k media that were evaluated, which are not all of the gallery. That is easier "
    "than the whole, and to be compared with nothing else."
)


def sections(cells: pd.DataFrame) -> list[str]:
    """Markdown: what the numbers mean, then a heading and a table per comparable part; empty without recalls."""
    found = [text for texts in grids(cells).values() for text in texts]
    return [found[0], READING, *found[1:]] if found else []


def grids(cells: pd.DataFrame) -> dict[str, list[str]]:
    """By suite, a heading and a markdown table for each comparable part, with one line per model and perturbation."""
    found: dict[str, list[str]] = {}
    for facts, apart, part in parts(cells):
        rows = [row for name, _, own in models(part) for row in _rows(name, own)]
        if rows:
            heading = f"## {facts['suite']} v{facts['suite_version']}: recalls{describe_distinction(facts, apart)}"
            partial = [PARTIAL] if any(" of " in name for row in rows for name in row) else []
            across = [] if all("x-to-text" in name for row in rows for name in row if "x-to-" in name) else [ACROSS]
            found.setdefault(str(facts["suite"]), []).extend([heading, *across, *partial, grid(rows)])
    return found


def _rows(model: str, cells: Sequence[Cell]) -> list[dict[str, str]]:
    found = []
    for cell in sorted(cells, key=lambda cell: cell["column"].order):
        values = {name: text for name, text in recalls(cell, cell["column"].of).items() if "median" not in name}
        if values:
            name = mark_name(model, str(cell.get("soundness") or ""))
            found.append({"model": name, "n": str(cell["n"]), "under": cell["column"], **values})
    return found


def recalls(cell: Mapping[Any, Any], perturbation: Perturbation) -> dict[str, str]:
    """A cell's recalls in % and median ranks, with `≤` or `≥` before bounds, by name such as `x-to-text R@5`.

    If only k media of a gallery were evaluated, names of text-to-x end in ` of k`. Old records lack that ending; they
    get it if they have fewer media than the gallery has classes.

    Args:
        cell: the provenance of a record, with its `n` and `task`.
        perturbation: of the record.
    """
    attacked = threat_of(perturbation) is not None
    exact = "" if is_bound(perturbation) else _find_exact(str(cell["task"]))
    few = cell["n"] < (cell.get("classes") or 0)
    found = {}
    for name, value in cell.items():
        if (hit := RECALL.match(str(name))) and not pd.isna(value):
            rank = hit["what"] == "median rank"
            bound = attacked and not (exact and str(name).startswith("x-to-") and str(name).endswith(exact))
            sign = ("≥ " if rank else "≤ ") if bound else ""
            part = f" of {cell['n']}" if few and hit["way"].endswith("-to-x") and not hit["part"] else ""
            found[f"{name}{part}"] = sign + (f"{value:g}" if rank else f"{100 * value:.1f}")
    return {name: found[name] for name in sorted(found, key=_order)}


def _order(name: str) -> tuple[object, ...]:
    """Sorts recalls: x-to-text before text-to-x, then by k; the median rank is last."""
    hit = RECALL.match(name)
    assert hit
    depth = hit["what"].removeprefix("R@")
    return hit["way"].endswith("-to-x"), int(depth) if depth.isdigit() else 99, name


def _find_exact(task: str) -> str:
    """The recall that the task attacks and counts as correct, such as " R@5", from its name such as msrvtt(R@5).

    Retrieval across sensors by class, such as cross-modal(scenes:image), attacks no recall of a scene: "".
    """
    depth = re.search(r"\(R@(\d+)\)", task)
    if depth is None and task.startswith("cross-modal"):
        return ""
    return f" R@{depth[1] if depth else 1}"
