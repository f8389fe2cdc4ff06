"""Joins stores that have the shards of one plan, and completes their records; needs neither models nor data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlbench.core import Record
from rlbench.core.errors import StoreError
from rlbench.engine.run.record import fill
from rlbench.store.lines import identity
from rlbench.store.shards import Outline, ShardFile
from rlbench.store.store import Store

Found = Sequence[tuple[Path, ShardFile]]
_FIELDS = ("suite_version", "backbone", "n")


def merge(stores: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[Record]:
    """Copies the blocks and records of stores into one, and records the cells whose blocks are complete there.

    Args:
        stores: of the shards of a plan, or of several plans that all of them are shards of.
        out: the joint store; it may be one of them.

    Returns:
        The plans' records, in the order of the plans.

    Raises:
        StoreError: a store has no shard, or one of another plan; a shard is missing or not finished.
    """
    plans: dict[str, list[tuple[Path, ShardFile]]] = {}
    for path in map(Path, stores):
        shards = Store(path).shards()
        if not shards:
            raise StoreError(f"{path} has no shard; `rlbench run --shard I/N --out {path}` makes one")
        for shard in shards:
            plans.setdefault(shard.plan, []).append((path, shard))
    _check_plans(list(plans.values()))
    for found in plans.values():
        _check_finished(found)
    joint = Store(out)
    joint.prepare()
    for path in map(Path, stores):
        joint.take_blocks(Store(path))
    errors = _errors(stores)
    records = [_record(joint, outline, errors) for found in plans.values() for outline in found[0][1].outlines]
    for record in records:
        joint.append(record)
    return records


def _record(store: Store, outline: Outline, errors: Mapping[object, str]) -> Record:
    blocks = [[store.block(key, *span) for span in outline.spans] for key in outline.keys]
    whole = all(block is not None for row in blocks for block in row)  # then an error is of an earlier run
    return fill(outline, blocks, None if whole else errors.get(identity(outline.record)))


def _errors(stores: Sequence[str | os.PathLike[str]]) -> dict[object, str]:
    """Why cells failed, by the identity of their records."""
    found: dict[object, str] = {}
    for store in stores:
        for record in Store(store).records()[0]:
            if record.error is not None:
                found.setdefault(identity(record), record.error)
    return found


def _check_plans(plans: Sequence[Found]) -> None:
    """Raises StoreError if a plan lacks shards; says what differs if the store of one has another plan's."""
    for found in plans:
        path, first = found[0]
        missing = sorted(set(range(1, first.count + 1)) - {shard.index for _, shard in found})
        if not missing:
            continue
        paths = {path for path, _ in found}
        for other in (other for other in plans if other is not found):
            if strange := [(place, shard) for place, shard in other if place not in paths]:
                raise StoreError(
                    f"{path} and {strange[0][0]} have shards of different plans: {_difference(first, strange[0][1])}; "
                    "merge only shards of the same command"
                )
        names = ", ".join(f"{index}/{first.count}" for index in missing)
        raise StoreError(f"of {first.count} shards, {names} {'are' if missing[1:] else 'is'} missing; run with --shard")


def _difference(one: ShardFile, other: ShardFile) -> str:
    if one.count != other.count:
        return f"one is of {one.count} shards, the other of {other.count}"
    cells, others = ({_cell(outline): outline for outline in shard.outlines} for shard in (one, other))
    if alone := [cell for cell in (*cells, *others) if (cell in cells) != (cell in others)]:
        return f"only one has {' '.join(alone[0])}"
    for cell, outline in cells.items():
        a, b = outline.record, others[cell].record
        pairs = [(name.replace("_", " "), getattr(a, name), getattr(b, name)) for name in _FIELDS]
        names = dict.fromkeys([*a.provenance, *b.provenance])
        pairs += [(name, a.provenance.get(name), b.provenance.get(name)) for name in names]
        for name, x, y in (pair for pair in pairs if pair[1] != pair[2]):
            return f"{name} of {' '.join(cell)} is {x} in one and {y} in the other"
    return "the hidden steps of their attacks"


def _cell(outline: Outline) -> tuple[str, str, str, str]:
    return outline.record.suite, outline.record.task, outline.record.model, str(outline.record.perturbation)


def _check_finished(found: Found) -> None:
    """Raises StoreError if a shard lacks blocks of cells that did not fail."""
    for path, shard in found:
        store = Store(path)
        failed = _errors([path])
        missing = sum(
            not any(Store(place).has_block(key, *span) for place, _ in found)
            for key, span in _blocks(shard)
            if not any(key in outline.keys and identity(outline.record) in failed for outline in shard.outlines)
        )
        if missing:
            raise StoreError(
                f"shard {shard.index}/{shard.count} in {store.path} is not finished: {missing} of its blocks are "
                "missing; run the same command again"
            )


def _blocks(shard: ShardFile) -> Iterator[tuple[str, tuple[int, int]]]:
    """The key and span of every block of a shard."""
    spans = {
        (key, span): k for outline in shard.outlines for key in outline.keys for k, span in enumerate(outline.spans)
    }
    return (block for block, k in spans.items() if k % shard.count == shard.index - 1)
