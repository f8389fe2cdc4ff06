"""Blocks: what a cell's examples gave, as parquet that carries its own digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlbench.core.documents import load_json

BLOCK = 256  # examples
# what a file that is not a block can raise on the way
DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, MemoryError),
    pa.ArrowException,
)
_DTYPES: dict[str, Any] = {
    "label": np.int64,
    "clean": np.int64,
    "prediction": np.int64,
    "correct": np.bool_,
    "margin": np.float32,
    "distance": np.float64,
    "forwards": np.int64,
    "backwards": np.int64,
}
_COLUMNS = ("id", "source", *_DTYPES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Examples start..stop-1 of a cell, one array a column, (stop - start,) each.

    Attributes:
        id, source: of the example.
        label, clean, prediction: class indices: the true one, predicted clean, predicted perturbed.
        correct: the perturbed example is classified correctly; margin: its z_y - max_{j != y} z_j.
        distance: float64, in box units and the threat's norm; 0 where nothing was perturbed, NaN for a corruption.
        forwards, backwards: passes spent on the example.
        seconds: wall time. environment: versions, device and dtype.
        evidence: sums of `soundness.SUMS`; empty where nothing was watched.
        features: (stop - start, D) float32 unit embeddings of what was classified; of retrieval alone.
    """

    id: np.ndarray
    source: np.ndarray
    label: np.ndarray
    clean: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    margin: np.ndarray
    distance: np.ndarray
    forwards: np.ndarray
    backwards: np.ndarray
    seconds: float
    environment: Mapping[str, str]
    evidence: Mapping[str, int] = field(default_factory=dict)
    features: np.ndarray | None = None

    def digest(self) -> str:
        """Of all that it holds."""
        facts = [self.seconds, sorted(self.environment.items()), *sorted(self.evidence.items())]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for name in _COLUMNS:
            column = getattr(self, name)
            digest.update("\0".join(column).encode() if name in ("id", "source") else column.tobytes())
        if self.features is not None:
            digest.update(self.features.tobytes())
        return digest.hexdigest()


def to_bytes(block: Block, key: str, start: int) -> bytes:
    """A file's bytes: the columns, and what they belong to."""
    facts = {
        "key": key,
        "start": start,
        "digest": block.digest(),
        "seconds": block.seconds,
        "environment": dict(block.environment),
        "evidence": dict(block.evidence),
    }
    table = pa.table({name: getattr(block, name) for name in _COLUMNS})
    if block.features is not None:
        rows = pa.FixedSizeListArray.from_arrays(block.features.ravel(), block.features.shape[1])
        table = table.append_column("features", rows)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"rlbench": json.dumps(facts)}), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(data: bytes, key: str, start: int, stop: int) -> Block:
    """The block. Raises: one of DAMAGE where the file is not that block, whole and unaltered."""
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if file.metadata.num_rows != stop - start:
        raise ValueError(f"it has {file.metadata.num_rows} examples")
    table = file.read(use_threads=False)  # no threads at exit
    facts = load_json(table.schema.metadata[b"rlbench"].decode())
    strings: dict[str, Any] = {name: np.array(table[name].to_pylist(), dtype=object) for name in ("id", "source")}
    numbers = {name: table[name].to_numpy().astype(dtype, casting="equiv") for name, dtype in _DTYPES.items()}
    kept: dict[str, Any] = {name: facts[name] for name in ("seconds", "environment")}
    kept |= strings | numbers | {"evidence": facts.get("evidence", {})}
    if "features" in table.column_names:
        kept["features"] = np.stack(table["features"].to_numpy()).astype(np.float32, casting="equiv")
    block = Block(**kept)
    if (facts["key"], facts["start"]) != (key, start) or facts["digest"] != block.digest():
        raise ValueError("its contents are not what its digest says")
    _check(block)
    return block


def _check(block: Block) -> None:
    """Raises ValueError where a value can't be, alone or beside the others."""
    texts = [*block.id, *block.source, *block.environment, *block.environment.values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("id, source and environment must be texts")
    if not all(type(count) is int and count >= 0 for count in block.evidence.values()):
        raise ValueError("evidence must be counts")
    if type(block.seconds) not in (int, float) or block.seconds < 0:
        raise ValueError("seconds must be at least 0")
    for name in ("label", "clean", "prediction", "forwards", "backwards"):
        if (getattr(block, name) < 0).any():
            raise ValueError(f"{name} must be at least 0")
    if (block.distance < 0).any():
        raise ValueError("distance must be at least 0")
