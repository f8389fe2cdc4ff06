"""The result store: blocks (parquet) and records (JSON lines); atomic, resumable, shared by concurrent runs.

    <store>/blocks/<cell key>/<start>-<stop>.parquet    one row an example: the truth
    <store>/records.jsonl                               one line a finished cell, computed from its blocks

A file is written next to its place, synced and moved there, so that a reader or a killed writer never leaves
half of one. A block carries the digest of its contents: one that does not match is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlbench.core import Record
from rlbench.errors import FieldError, StoreError
from rlbench.fields import checked
from rlbench.files import FULL, LOCK, clear, locked, place

BLOCK = 256  # examples
TIMED = ("seconds",)  # provenance that differs between two runs of the same cell
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


def timeless(record: Record) -> Record:
    """The record without what differs between two runs of the same cell (seconds)."""
    return replace(record, provenance={k: v for k, v in record.provenance.items() if k not in TIMED})


def _to_line(record: Record) -> str:
    return json.dumps(asdict(record), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _from_line(line: str) -> Record:
    """Raises: ValueError, FieldError."""
    values = json.loads(line)
    if not isinstance(values, dict) or not isinstance(values.get("provenance"), dict):
        raise ValueError("not a record")
    provenance = values.pop("provenance")
    record = Record(**checked(Record, values, "record"), provenance=provenance)  # type: ignore[arg-type]
    if (record.n_correct is None) == (record.error is None) or not 0 <= (record.n_correct or 0) <= record.n:
        raise ValueError("counts that can't be")
    return record


def _identity(record: Record) -> tuple[str, int, str, str]:
    return record.suite, record.suite_version, record.model, record.key


def _parse(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a JSON lines file, the last of each identity, and one sentence for each unusable line."""
    found: dict[tuple[str, int, str, str], Record] = {}
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            record = _from_line(line)
        except (ValueError, RecursionError, FieldError) as error:
            problems.append(f"{path}, line {number}, is not a record ({error})")
        else:
            found[_identity(record)] = record
    return list(found.values()), problems


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """The records of JSON lines files, of folders of them, or of stores, merged.

    Raises: StoreError for a missing file, an unusable line, or two files with other results of the same cell.
    """
    found: dict[tuple[str, int, str, str], tuple[Record, Path]] = {}
    for file in (file for path in paths for file in record_files(Path(path))):
        try:
            records, problems = _parse(file)
        except OSError as error:
            raise StoreError(f"can't read records from {file}: {error.strerror}; `rlbench run` writes them") from None
        if problems:
            raise StoreError(f"{problems[0]}; run the same command again to compute it again, or remove the line")
        for record in records:
            other, before = found.setdefault(_identity(record), (record, file))
            if (other.n_correct, other.error, other.flags) != (record.n_correct, record.error, record.flags):
                cell = f"{record.suite}, {record.model}, {record.perturbation}"
                raise StoreError(f"{file} contradicts {before} on one cell ({cell}); leave one of them out")
    return [record for record, _ in found.values()]


def record_files(path: Path) -> list[Path]:
    """A store's file of records, those of a folder of .jsonl files, or the file itself. Raises: StoreError for none."""
    if not path.is_dir() or (path / "records.jsonl").exists():
        return [path / "records.jsonl" if path.is_dir() else path]
    if not (found := sorted(path.glob("*.jsonl"))):
        raise StoreError(
            f"can't read records from {path}: no .jsonl file is there; `rlbench run --out {path}` makes it"
        )
    return found


def _to_bytes(block: Block, key: str, start: int) -> bytes:
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


def _from_bytes(data: bytes, key: str, start: int, stop: int) -> Block:
    """Raises: ValueError, KeyError, pa.ArrowException when it is not that block, whole and unaltered."""
    table = pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)  # no threads at exit
    facts = json.loads(table.schema.metadata[b"rlbench"])
    strings: dict[str, Any] = {name: np.array(table[name].to_pylist(), dtype=object) for name in ("id", "source")}
    numbers = {name: table[name].to_numpy().astype(dtype, casting="equiv") for name, dtype in _DTYPES.items()}
    kept: dict[str, Any] = {name: facts[name] for name in ("seconds", "environment")}
    kept |= strings | numbers | {"evidence": facts.get("evidence", {})}
    if "features" in table.column_names:
        kept["features"] = np.stack(table["features"].to_numpy()).astype(np.float32, casting="equiv")
    block = Block(**kept)
    if (facts["key"], facts["start"], len(block.id)) != (key, start, stop - start) or facts["digest"] != block.digest():
        raise ValueError("its contents are not what its digest says")
    return block


class Store:
    """A folder of blocks and records."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.inputs = self.path / "inputs"  # corrupted inputs, for the next model; may be removed at any time

    def check(self) -> None:
        """Raises StoreError where the folder could not be written; writes nothing."""
        nearest = next(p for p in (self.path.absolute(), *self.path.absolute().parents) if os.path.lexists(p))
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            reason = "no permission to write there" if nearest.is_dir() else f"{nearest} is not a folder"
            raise StoreError(f"can't write results to {self.path}: {reason}; choose another folder with --out")

    def prepare(self) -> None:
        """Makes the folder, proves that it can be written, and clears what killed writers left.

        Raises: StoreError.
        """
        self.check()
        with self._locked():
            self._place(self.path / ".probe", b"")
            (self.path / ".probe").unlink()
            clear(self.path)

    def block(self, key: str, start: int, stop: int) -> Block | None:
        """The block, or None where there is none.

        Raises: StoreError when it is damaged: to be computed again.
        """
        path = self._block(key, start, stop)
        try:
            return _from_bytes(path.read_bytes(), key, start, stop)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise StoreError(f"{path} is damaged ({str(error).splitlines()[0]}); it is computed again") from None

    def save(self, key: str, start: int, stop: int, block: Block) -> None:
        """Writes the block whole. Raises: StoreError."""
        self._place(self._block(key, start, stop), _to_bytes(block, key, start))

    def records(self) -> tuple[list[Record], list[str]]:
        """The records, and one sentence for each line that can't be used. Raises: StoreError."""
        try:
            return _parse(self.path / "records.jsonl")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise StoreError(f"can't read {self.path / 'records.jsonl'}: {error.strerror}") from None

    def append(self, record: Record) -> None:
        """Adds the record, in the place of one of the same cell. Raises: StoreError."""
        self._edit(lambda records: [r for r in records if _identity(r) != _identity(record)] + [record], record)

    def forget(self, keys: Sequence[str], records: Sequence[str]) -> None:
        """Removes the blocks of these cell keys and the records of these record keys. Raises: StoreError."""
        for key in keys:
            shutil.rmtree(self.path / "blocks" / key, ignore_errors=True)
        gone = set(records)
        self._edit(lambda kept: [r for r in kept if r.key not in gone])

    def _block(self, key: str, start: int, stop: int) -> Path:
        return self.path / "blocks" / key / f"{start}-{stop}.parquet"

    def _edit(self, change: Callable[[list[Record]], list[Record]], present: Record | None = None) -> None:
        with self._locked():
            records, problems = self.records()
            if problems or present is None or present not in records:
                lines = "".join(_to_line(r) + "\n" for r in change(records))
                self._place(self.path / "records.jsonl", lines.encode())

    def _place(self, path: Path, data: bytes) -> None:
        try:
            try:
                place(path, data, folder=self.path)
            except OSError as error:
                if error.errno not in FULL or not self.inputs.is_dir():
                    raise
                shutil.rmtree(self.inputs, ignore_errors=True)  # what can be made again makes room for what can't
                place(path, data, folder=self.path)
        except OSError as error:
            raise self._refusal(f"can't write {path}", error) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / LOCK))
            except OSError as error:
                raise self._refusal(f"can't write results to {self.path}", error) from None
            yield

    def _refusal(self, what: str, error: OSError) -> StoreError:
        hint = "free some space, or choose" if error.errno in FULL else "choose"
        return StoreError(f"{what}: {error.strerror or error}; {hint} another folder with --out")
