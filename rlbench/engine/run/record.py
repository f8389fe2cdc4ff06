"""From a cell's blocks to its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from rlbench.core import Field, Perturbation, Record
from rlbench.core.badges import Finding
from rlbench.core.errors import one_line
from rlbench.core.knowledge import Knowledge
from rlbench.core.sensors import SensorTask
from rlbench.core.stats.metrics import cluster_interval
from rlbench.core.threat import threat_of
from rlbench.encoders.retrieval import hash_prompts
from rlbench.engine import cells
from rlbench.engine.attack.elsewhere import OTHER, Passes, passes_elsewhere
from rlbench.engine.attack.exact import AGAIN, BROKE
from rlbench.engine.block.gallery import Gallery
from rlbench.engine.block.universal import describe_elsewhere
from rlbench.engine.plan.planner import Pair
from rlbench.engine.soundness import rules
from rlbench.store.blocks import Block
from rlbench.store.flags import pack
from rlbench.store.keys import record_key
from rlbench.store.perturbations import simplify
from rlbench.store.shards import Outline

INCOMPLETE = "some of its blocks are missing"


def members(pair: Pair, p: Perturbation) -> list[Perturbation]:
    """The cells whose blocks make up a cell's record: the cell itself, or those that a worst case is taken over."""
    return cells.members_of(p, pair.suite.perturbations) if cells.is_aggregate(p) else [p]


def outline(pair: Pair, p: Perturbation) -> Outline:
    """What is known of a cell's record before any of its blocks.

    Args:
        pair: the suite and the model.
        p: the cell's perturbation.
    """
    size = pair.suite.task.size("test")
    record = Record(
        key=record_key(pair.keys[p], pair.n),
        suite=pair.suite.name,
        suite_version=pair.suite.version,
        task=pair.suite.task_name,
        modality=pair.suite.modality,
        model=pair.model,
        backbone=pair.backbone,
        perturbation=simplify(p),
        n=pair.n,
        n_correct=None,
        error=INCOMPLETE,
        forwards=0,
        backwards=0,
        provenance=_plan_provenance(pair, p),
    )
    return Outline(
        record,
        keys=tuple(pair.keys[m] for m in members(pair, p)),
        own=members(pair, p) == [p],  # a worst case has no passes of its own
        spans=tuple(pair.spans),
        gallery=None if pair.gallery is None else (pair.gallery.anchors, pair.gallery.owners),
        medium="text" if pair.gallery is None else pair.gallery.medium,
        whole=size is None or pair.n >= size,
    )


def fill(outline: Outline, blocks: Sequence[Sequence[Block | None]], error: str | None) -> Record:
    """The record of a cell.

    Args:
        outline: of the record.
        blocks: the blocks of each of its `keys`, in order; None for a failed block.
        error: why the cell failed, with or without its own name, which the record does not repeat; None if it did not.
            A failed cell has no counts, nor one that lacks a block.
    """
    found = [block for row in blocks for block in row if block is not None]
    if error is None and len(found) < sum(map(len, blocks)):
        error = INCOMPLETE
    own = found if outline.own else []
    others = [passes_elsewhere(block.evidence) for block in own]
    correct = None if error else np.concatenate([_all_correct(rows) for rows in zip(*blocks, strict=True)])
    return replace(
        outline.record,
        n_correct=None if correct is None else int(correct.sum()),
        error=None if error is None else one_line(error).removeprefix(f"{outline.record.perturbation}: "),
        forwards=sum(int(block.forwards.sum()) for block in own) + sum(other.forwards for other in others),
        backwards=sum(int(block.backwards.sum()) for block in own) + sum(other.backwards for other in others),
        flags=None if correct is None else pack(correct),
        provenance={**outline.record.provenance}
        | _block_provenance(
            found, sum(block.seconds for block in own), _knowledge(outline), _check_chance(outline, blocks)
        )
        | (_count_last(outline, own) if correct is not None and outline.own else {})
        | _count_others(others)
        | _clusters(correct, blocks)
        | _queries(outline, blocks if correct is not None else [])
        | _recalls(outline, own if correct is not None else [])
        | _count_certified(own if correct is not None else []),
    )


def _recalls(outline: Outline, blocks: Sequence[Block]) -> dict[str, Field]:
    """For retrieval, R@K in both directions; otherwise nothing."""
    features = [block.features for block in blocks if block.features is not None]
    if outline.gallery is None or not features:
        return {}
    labels = np.concatenate([block.label for block in blocks])
    gallery = Gallery(*outline.gallery, outline.medium)
    return dict(gallery.recalls(np.concatenate(features), labels, whole=outline.whole))


def _count_certified(blocks: Sequence[Block]) -> dict[str, Field]:
    """Of several sensors without an attack, the examples with a takeover certificate; nothing without certificates."""
    found = [block.certified for block in blocks if block.certified is not None]
    if not found or len(found) < len(blocks):
        return {}
    certified = np.concatenate(found)
    return {"certified": int(certified.sum())} | _interval("certified", certified, blocks)


def _queries(outline: Outline, blocks: Sequence[Sequence[Block | None]]) -> dict[str, Field]:
    """Of a black box, the most queries of an example, over all members; otherwise nothing."""
    if _knowledge(outline) == "white-box" or not blocks:
        return {}
    spent = [np.concatenate([block.forwards for block in row if block is not None]) for row in blocks]
    return {"queries": int(np.sum(spent, axis=0).max())}


def _count_last(outline: Outline, blocks: Sequence[Block]) -> dict[str, Field]:
    """After a search in low precision, the examples of the last search in float32, and those that it broke."""
    threat = threat_of(outline.record.perturbation)
    if threat is None or threat.precision == "fp32":
        return {}
    return {name: sum(block.evidence.get(name, 0) for block in blocks) for name in (AGAIN, BROKE)}


def _count_others(others: Sequence[Passes]) -> dict[str, Field]:
    """The passes among the record's that are not the model's on its examples, if there are any."""
    counts = [sum(column) for column in zip(*others, strict=True)]
    return dict(zip(OTHER, counts, strict=True)) if any(counts) else {}


def _knowledge(outline: Outline) -> Knowledge:
    """What an attacker knows of the encoder."""
    return cast(Knowledge, outline.record.provenance.get("knowledge", "white-box"))


def _all_correct(rows: Sequence[Block | None]) -> np.ndarray:
    """(B,) bool, the examples that are correct under every member: the worst case is taken per example."""
    correct: np.ndarray = np.logical_and.reduce([block.correct for block in rows if block is not None])
    return correct


def _plan_provenance(pair: Pair, p: Perturbation) -> dict[str, Field]:
    """What the plan knows of that on which the record's numbers depend."""
    found: dict[str, Field] = {name: str(pair.subject[name]) for name in ("checkpoint", "anchors", "data")}
    found |= {"protocol": cells.protocol(pair.suite, p), "seed": pair.suite.seed, "classes": pair.n_classes}
    found |= {"prompts": hash_prompts(pair.suite.task)}
    knowledge = str(pair.subject.get("knowledge", "white-box"))
    found |= {"knowledge": knowledge} if knowledge != "white-box" else {}
    if isinstance(task := pair.suite.task, SensorTask):
        found |= {"fusion": pair.suite.fusion, "pairing": task.pairing}
    series = getattr(pair.suite.task, "series", 0)
    found |= {"series": series} if series else {}
    commit = getattr(pair.suite.task, "commit", "")
    found |= {"revision": commit} if commit else {}
    several = pair.suite.sensors or hasattr(pair.suite.task, "load_gallery")
    found |= {"pairing": str(getattr(pair.suite.task, "pairing", "paired"))} if several else {}
    found |= {"mode": mode} if (mode := cells.mode(p)) != "standalone" else {}
    return found | cells.describe_attack(p, pair.n_classes) | describe_elsewhere(pair.suite, p)


def _check_chance(outline: Outline, blocks: Sequence[Sequence[Block | None]]) -> list[Finding]:
    """For classification, whether the accuracy on the clean examples of a cell is above chance."""
    found = [block for block in blocks[0] if block is not None] if outline.gallery is None else []
    labels = [int(label) for block in found for label in block.label]
    right = sum(int((block.clean == block.label).sum()) for block in found)
    return [rules.check_chance(right, labels)] if found else []


def _block_provenance(
    blocks: Sequence[Block], seconds: float, knowledge: Knowledge, others: Sequence[Finding]
) -> dict[str, Field]:
    """The versions and devices of the blocks, the classes that they have, their soundness badge and their seconds."""
    found: dict[str, Field] = {
        name: "+".join(sorted({block.environment[name] for block in blocks}))
        for name in (blocks[0].environment if blocks else ())
    }
    found |= {"seen": len({int(label) for block in blocks for label in block.label})}
    found |= rules.provenance([block.evidence for block in blocks], knowledge, others)
    return found | {"seconds": round(seconds, 3)}


def _clusters(correct: np.ndarray | None, blocks: Sequence[Sequence[Block | None]]) -> dict[str, Field]:
    """If examples share sources: the number of sources, and the interval of a bootstrap over them."""
    if correct is None:
        return {}
    found = [block for block in blocks[0] if block is not None]
    interval = _interval("clustered", correct, found)
    return interval and {"sources": len({name for block in found for name in block.source})} | interval


def _interval(name: str, hits: np.ndarray, blocks: Sequence[Block]) -> dict[str, Field]:
    """The interval of a share, `NAME_low` and `NAME_high`, if examples share sources; `hits` is (N,) bool."""
    sources = np.concatenate([block.source for block in blocks])
    if len(set(sources)) == len(sources):
        return {}
    low, high = cluster_interval(hits.tolist(), sources.tolist())
    return {f"{name}_low": round(low, 6), f"{name}_high": round(high, 6)}
