"""Per-example results as frames: from the flags of records, and from the blocks of stores where they are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    """One row an example of a cell: what the cell is, `index`, `correct`, and where a store has its blocks, the rest.

    The rest is id, source, label, clean and perturbed prediction (class indices), margin, distance (box units), and the
    passes that were spent; missing values elsewhere. Failed cells have no rows.

    Raises:
        StoreError: no store, no record, stores that contradict each other, or a damaged block.
    """
    places = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found = [cell for record in read_records(places) if (cell := _cell(record, places)) is not None]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _cell(record: Record, places: Iterable[Path]) -> pd.DataFrame | None:
    if record.flags is None:
        return None
    facts: dict[str, Any] = {name: getattr(record, name) for name in CELL}
    facts |= {"perturbation": str(record.perturbation), **to_columns(record.perturbation)}
    facts |= {name: record.provenance.get(name) for name in FACTS}
    rows = {**facts, "index": np.arange(record.n), "correct": flags_of(record), **_read_parts(blocks(record, places))}
    return pd.DataFrame(rows)


def _read_parts(parts: Sequence[Block]) -> Mapping[str, Any]:
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS} if parts else {}


def blocks(record: Record, places: Iterable[Path]) -> list[Block]:
    """A record's blocks, in order, of the first store that has them all; none for a worst case, which has no own.

    Raises:
        StoreError: a damaged block.
    """
    spans = [(start, min(start + BLOCK, record.n)) for start in range(0, record.n, BLOCK)]
    for place in places:
        folder = place / "blocks"
        keys = (
            [path.name for path in folder.iterdir() if record_key(path.name, record.n) == record.key]
            if folder.is_dir()
            else []
        )
        for key in sorted(keys):
            found = [block for span in spans if (block := Store(place).block(key, *span)) is not None]
            if len(found) == len(spans):
                return found
    return []


def sources(records: Iterable[Record], paths: Iterable[str | Path]) -> dict[str, list[str]]:
    """By data hash the source of each example, in order, as far as clean blocks of these stores say.

    Raises: StoreError.
    """
    found: dict[str, list[str]] = {}
    places = [Path(path) for path in paths]
    for record in records:
        data = str(record.provenance.get("data"))
        if isinstance(record.perturbation, Clean) and record.n > len(found.get(data, [])):
            known = [str(source) for part in blocks(record, places) for source in part.source]
            if len(set(known)) < len(known):
                found[data] = known
    return found


def example_ids(store: Store, records: Iterable[Record]) -> dict[object, list[str]]:
    """The ids of the examples of each set of data that a store has whole blocks of. Raises: StoreError."""
    found: dict[object, list[str]] = {}
    for record in records:
        data = record.provenance.get("data")
        if data not in found and (whole := blocks(record, [store.path])):
            found[data] = [str(name) for block in whole for name in block.id]
    return found
