"""From a cell's blocks to its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from rlbench.core import Field, Perturbation, Record, Worst
from rlbench.core.errors import one_line
from rlbench.core.knowledge import Knowledge
from rlbench.core.stats.metrics import cluster_interval
from rlbench.encoders.retrieval import hash_prompts
from rlbench.engine import cells
from rlbench.engine.plan.planner import Pair
from rlbench.engine.soundness import rules
from rlbench.store.blocks import Block
from rlbench.store.flags import pack
from rlbench.store.keys import record_key
from rlbench.store.perturbations import simplify


def members(pair: Pair, p: Perturbation) -> list[Perturbation]:
    """The cells whose blocks a cell's record is made of: its own, or those that a worst case is taken over."""
    if isinstance(p, Worst) and cells.is_aggregate(p):
        return [cells.canonical(m) for m in cells.worst_members(p, pair.suite.perturbations)]
    return [p]


def make_record(pair: Pair, p: Perturbation, blocks: Sequence[Sequence[Block | None]], error: str | None) -> Record:
    """The record of a cell.

    Args:
        blocks: of each of its `members`, in order; None for what failed.
        error: why the cell failed; then it has no counts.
    """
    kept = [block for row in blocks for block in row if block is not None]
    own = kept if members(pair, p) == [p] else []
    correct = None if error else np.concatenate([_all_correct(rows) for rows in zip(*blocks, strict=True)])
    return Record(
        key=record_key(pair.keys[p], pair.n),
        suite=pair.suite.name,
        suite_version=pair.suite.version,
        task=pair.suite.task_name,
        modality=pair.suite.modality,
        model=pair.model,
        backbone=pair.backbone,
        perturbation=simplify(p),
        n=pair.n,
        n_correct=None if correct is None else int(correct.sum()),
        error=None if error is None else one_line(error),
        forwards=sum(int(block.forwards.sum()) for block in own),
        backwards=sum(int(block.backwards.sum()) for block in own),
        flags=None if correct is None else pack(correct),
        provenance=_provenance(pair, p, kept, sum(block.seconds for block in own))
        | _clusters(correct, blocks)
        | _black_box(pair, blocks if correct is not None else [])
        | _recalls(pair, own if correct is not None else []),
    )


def _recalls(pair: Pair, blocks: Sequence[Block]) -> dict[str, Field]:
    """Of a gallery, R@k in both directions."""
    features = [block.features for block in blocks if block.features is not None]
    if pair.gallery is None or not features:
        return {}
    labels = np.concatenate([block.label for block in blocks])
    size = pair.suite.task.size("test")
    return dict(pair.gallery.recalls(np.concatenate(features), labels, whole=size is None or pair.n >= size))


def _black_box(pair: Pair, blocks: Sequence[Sequence[Block | None]]) -> dict[str, Field]:
    """Of a black box: its knowledge, and the most queries of an example, over all members."""
    if (knowledge := _knowledge(pair)) == "white-box":
        return {}
    spent = [np.concatenate([block.forwards for block in row if block is not None]) for row in blocks]
    return {"knowledge": knowledge} | ({"queries": int(np.sum(spent, axis=0).max())} if spent else {})


def _knowledge(pair: Pair) -> Knowledge:
    """What an attacker knows of the pair's encoder."""
    return cast(Knowledge, pair.subject.get("knowledge", "white-box"))


def _all_correct(rows: Sequence[Block | None]) -> np.ndarray:
    """Per example: correct under every member; a mean of minima, never a minimum of means."""
    correct: np.ndarray = np.logical_and.reduce([block.correct for block in rows if block is not None])
    return correct


def _provenance(pair: Pair, p: Perturbation, blocks: Sequence[Block], seconds: float) -> dict[str, Field]:
    found: dict[str, Field] = {
        name: "+".join(sorted({block.environment[name] for block in blocks}))
        for name in (blocks[0].environment if blocks else ())
    }
    found |= {name: str(pair.subject[name]) for name in ("checkpoint", "anchors", "data")}
    found |= {"protocol": cells.protocol(pair.suite, p), "seed": pair.suite.seed, "classes": pair.n_classes}
    found |= {
        "seen": len({int(label) for block in blocks for label in block.label}),
        "prompts": hash_prompts(pair.suite.task),
    }
    series = getattr(pair.suite.task, "series", 0)
    found |= {"series": series} if series else {}
    found |= rules.provenance([block.evidence for block in blocks], _knowledge(pair))
    found |= {"mode": mode} if (mode := cells.mode(p)) != "standalone" else {}
    return found | cells.describe_attack(p, pair.n_classes) | {"seconds": round(seconds, 3)}


def _clusters(correct: np.ndarray | None, blocks: Sequence[Sequence[Block | None]]) -> dict[str, Field]:
    """The number of sources, and the interval by a bootstrap over them, where examples share sources."""
    if correct is None:
        return {}
    sources = np.concatenate([block.source for block in blocks[0] if block is not None])
    if (n := len(set(sources))) == len(sources):
        return {}
    low, high = cluster_interval(correct.tolist(), sources.tolist())
    return {"sources": n, "clustered_low": round(low, 6), "clustered_high": round(high, 6)}
