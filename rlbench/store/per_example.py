"""Per-example results as data frames: from the flags of records, and from the blocks of stores if there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlbench.core import Clean, Record
from rlbench.store.blocks import BLOCK, Block
from rlbench.store.flags import flags_of
from rlbench.store.keys import record_key
from rlbench.store.perturbations import to_columns
from rlbench.store.records import read_records
from rlbench.store.store import Store

CELL = ("suite", "suite_version", "modality", "task", "model", "backbone")
FACTS = ("data", "seed", "checkpoint", "protocol")
_FIELDS = ("id", "source", "label", "clean", "prediction", "margin", "distance", "forwards", "backwards")


def examples(paths: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """Loads per-example results: one row per cell and example.

    Every row describes its cell and has `index` and `correct`. If a store has the cell's blocks, a row also has id,
    source, label, clean and perturbed prediction (class indices), margin, distance (box units) and passes; otherwise
    these are missing values. Failed cells have no rows. Unattacked cells of a fusion that has takeover certificates
    also have `certified`.

    Args:
        paths: one or several stores, .jsonl files or folders of them.

    Raises:
        StoreError: there is no store or no record, stores contradict each other, or a block is damaged.
    """
    stores = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    frames = [frame for record in read_records(stores) if (frame := _load_cell(record, stores)) is not None]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _load_cell(record: Record, stores: Iterable[Path]) -> pd.DataFrame | None:
    if record.flags is None:
        return None
    facts: dict[str, Any] = {name: getattr(record, name) for name in CELL}
    facts |= {"perturbation": str(record.perturbation), **to_columns(record.perturbation)}
    facts |= {name: record.provenance.get(name) for name in FACTS}
    facts |= {"index": np.arange(record.n), "correct": flags_of(record)}
    return pd.DataFrame(facts | _join(blocks(record, stores)))


def _join(parts: Sequence[Block]) -> dict[str, Any]:
    """The columns of a cell's blocks; none if there are no blocks."""
    whole = all(part.certified is not None for part in parts)
    names = (*_FIELDS, "certified") if whole else _FIELDS
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names} if parts else {}


def blocks(record: Record, stores: Iterable[Path]) -> list[Block]:
    """A record's blocks, in order.

    Args:
        record: of a cell.
        stores: folders, searched in this order.

    Returns:
        The blocks of the first store that has all of them; none for a worst case, which has no blocks of its own.

    Raises:
        StoreError: a block is damaged.
    """
    spans = [(start, min(start + BLOCK, record.n)) for start in range(0, record.n, BLOCK)]
    for store in stores:
        folder = store / "blocks"
        keys = (
            [path.name for path in folder.iterdir() if record_key(path.name, record.n) == record.key]
            if folder.is_dir()
            else []
        )
        for key in sorted(keys):
            found = [block for span in spans if (block := Store(store).block(key, *span)) is not None]
            if len(found) == len(spans):
                return found
    return []


def sources(records: Iterable[Record], paths: Iterable[str | Path]) -> dict[str, list[str]]:
    """The sources of examples that share some, by the hash of their data.

    Args:
        records: the clean ones are used.
        paths: the stores with their blocks.

    Returns:
        By data hash, the source of each example, in order; without data whose blocks are missing, or whose examples
        all have sources of their own.

    Raises:
        StoreError: a block is damaged.
    """
    found: dict[str, list[str]] = {}
    stores = [Path(path) for path in paths]
    for record in records:
        data = str(record.provenance.get("data"))
        if isinstance(record.perturbation, Clean) and record.n > len(found.get(data, [])):
            names = [str(source) for block in blocks(record, stores) for source in block.source]
            if len(set(names)) < len(names):
                found[data] = names
    return found


def example_ids(store: Store, records: Iterable[Record]) -> dict[object, list[str]]:
    """The ids of a store's examples, by the hash of their data.

    Args:
        store: with the blocks.
        records: of the store; data whose blocks are missing is left out.

    Raises:
        StoreError: a block is damaged.
    """
    found: dict[object, list[str]] = {}
    for record in records:
        data = record.provenance.get("data")
        if data not in found and (parts := blocks(record, [store.path])):
            found[data] = [str(name) for block in parts for name in block.id]
    return found
