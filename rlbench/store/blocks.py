"""Blocks: the per-example results of a cell, as Parquet files that contain a digest of their content."""

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
# The exceptions of reading a file that is not a block.
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
    """The results of N consecutive examples of a cell; every array is (N,) unless it says otherwise.

    Attributes:
        id: str, the example's id.
        source: str, the recording, speaker or date that the example shares with others.
        label: int64, the true class.
        clean: int64, the class predicted for the clean example.
        prediction: int64, the class predicted for the perturbed example.
        correct: bool, whether the perturbed example is classified correctly.
        margin: float32, z_y - max_{j != y} z_j of the perturbed example.
        distance: float64, the perturbation's norm in box units; 0 if nothing was perturbed, NaN for a corruption.
        forwards: int64, the forward passes spent on the example.
        backwards: int64, the backward passes spent on the example.
        seconds: wall time of the block.
        environment: versions, device and dtype.
        evidence: the sums of the soundness checks (`soundness.SUMS`); empty if none were made.
        features: (N, D) float32 unit embeddings of the perturbed examples; None unless the task is retrieval.
        certified: bool, of several sensors without an attack: whether the example stays correct whatever any one of
            them says; None if the fusion has no certificate.
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
    certified: np.ndarray | None = None

    def digest(self) -> str:
        """The SHA-256 of all fields."""
        facts = [self.seconds, sorted(self.environment.items()), *sorted(self.evidence.items())]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for name in _COLUMNS:
            column = getattr(self, name)
            digest.update("\0".join(column).encode() if name in ("id", "source") else column.tobytes())
        for more in (self.features, self.certified):
            if more is not None:
                digest.update(more.tobytes())
        return digest.hexdigest()


def to_bytes(block: Block, key: str, start: int) -> bytes:
    """Serialises a block to Parquet, with its cell, its position and its digest as metadata.

    Args:
        block: the results.
        key: of the cell.
        start: the number of the block's first example.
    """
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
    if block.certified is not None:
        table = table.append_column("certified", pa.array(block.certified))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"rlbench": json.dumps(facts)}), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(data: bytes, key: str, start: int, stop: int) -> Block:
    """Parses the file of a block.

    Args:
        data: the file's bytes.
        key: of the cell that it must belong to.
        start: the number of its first example.
        stop: the number after its last example.

    Raises:
        One of DAMAGE: the file is damaged, altered, or another block's.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if file.metadata.num_rows != stop - start:
        raise ValueError(f"it has {file.metadata.num_rows} examples")
    table = file.read(use_threads=False)  # a thread could outlive the interpreter
    facts = load_json(table.schema.metadata[b"rlbench"].decode())
    strings: dict[str, Any] = {name: np.array(table[name].to_pylist(), dtype=object) for name in ("id", "source")}
    numbers = {name: table[name].to_numpy().astype(dtype, casting="equiv") for name, dtype in _DTYPES.items()}
    values: dict[str, Any] = {name: facts[name] for name in ("seconds", "environment")}
    values |= strings | numbers | {"evidence": facts.get("evidence", {})}
    if "features" in table.column_names:
        values["features"] = np.stack(table["features"].to_numpy()).astype(np.float32, casting="equiv")
    if "certified" in table.column_names:
        values["certified"] = table["certified"].to_numpy().astype(np.bool_, casting="equiv")
    block = Block(**values)
    if (facts["key"], facts["start"]) != (key, start) or facts["digest"] != block.digest():
        raise ValueError("its content does not match its digest")
    _check(block)
    return block


def _check(block: Block) -> None:
    """Raises ValueError if a value is impossible."""
    texts = [*block.id, *block.source, *block.environment, *block.environment.values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("id, source and environment must be strings")
    if not all(type(count) is int and count >= 0 for count in block.evidence.values()):
        raise ValueError("evidence must be counts")
    if type(block.seconds) not in (int, float) or block.seconds < 0:
        raise ValueError("seconds must be at least 0")
    for name in ("label", "clean", "prediction", "forwards", "backwards"):
        if (getattr(block, name) < 0).any():
            raise ValueError(f"{name} must be at least 0")
    if (block.distance < 0).any():
        raise ValueError("distance must be at least 0")
