"""The result store: blocks (Parquet) and records (JSON lines); atomic, resumable, safe for concurrent runs.

    <store>/blocks/<cell key>/<start>-<stop>.parquet    one row per example: the results
    <store>/records.jsonl                               one line per finished cell, computed from its blocks
    <store>/shards/                                     the plans that it has a part of, see `shards`

Files are written to a temporary file, synced and moved into place, so that no reader ever sees half of one. A block
contains a digest of its content; a block that does not match its digest is computed again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zipfile import BadZipFile

from rlbench.core import Record
from rlbench.core.documents import reason
from rlbench.core.errors import RLBenchError, StoreError, first_line
from rlbench.core.files import FULL, LOCK, clear, hold_lock, place
from rlbench.store import shards
from rlbench.store.blocks import DAMAGE, Block, from_bytes, to_bytes
from rlbench.store.lines import identity, to_line
from rlbench.store.records import parse
from rlbench.store.shards import ShardFile


class Store:
    """A folder of blocks and records.

    Attributes:
        path: the folder; `prepare` creates it.
        inputs: its folder of corrupted inputs, a cache that later models reuse; may be removed at any time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.inputs = self.path / "inputs"

    def check(self, *, fresh: bool = False) -> list[str]:
        """Checks that the folder can be written and its records read; writes nothing.

        Args:
            fresh: report records of an older format instead of raising, since `prepare` will move them aside.

        Returns:
            One sentence per unusable line.

        Raises:
            StoreError: the folder can't be written, or has records of an older format.
        """
        nearest = next(p for p in (self.path.absolute(), *self.path.absolute().parents) if os.path.lexists(p))
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            reason = "no permission to write there" if nearest.is_dir() else f"{nearest} is not a folder"
            raise StoreError(f"can't write results to {self.path}: {reason}; choose another folder with --out")
        try:
            return self.records()[1]
        except StoreError as error:
            if not fresh:
                raise
            return [str(error)]

    def prepare(self, *, fresh: bool = False) -> None:
        """Creates the folder, writes a probe file, and removes the temporary files of killed writers.

        Args:
            fresh: move records of an older format to `records-1.jsonl.old`.

        Raises:
            StoreError: as `check`.
        """
        self.check(fresh=fresh)
        with self._lock():
            if fresh:
                self._move_old()
            self._place(self.path / ".probe", b"")
            (self.path / ".probe").unlink()
            clear(self.path)

    def _move_old(self) -> None:
        file = self.path / "records.jsonl"
        try:
            self.records()
        except StoreError:
            if file.is_file():
                file.replace(file.with_name("records-1.jsonl.old"))

    def block(self, key: str, start: int, stop: int) -> Block | None:
        """Reads examples start..stop-1 of a cell.

        Args:
            key: of the cell.
            start: the first example.
            stop: the example after the last.

        Returns:
            The block; None if it is not there.

        Raises:
            StoreError: it is damaged, and has to be computed again.
        """
        path = self._block(key, start, stop)
        try:
            return from_bytes(path.read_bytes(), key, start, stop)
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            raise StoreError(f"{path} is damaged ({first_line(error)}); it is computed again") from None

    def save(self, key: str, start: int, stop: int, block: Block) -> None:
        """Writes examples start..stop-1 of a cell.

        Args:
            key: of the cell.
            start: the first example.
            stop: the example after the last.
            block: their results.

        Raises:
            StoreError: it can't be written.
        """
        self._place(self._block(key, start, stop), to_bytes(block, key, start))

    def records(self) -> tuple[list[Record], list[str]]:
        """The records, and one sentence per unusable line. Raises: StoreError, also for an older format."""
        try:
            return parse(self.path / "records.jsonl")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise StoreError(f"can't read {self.path / 'records.jsonl'}: {reason(error)}") from None

    def append(self, record: Record) -> None:
        """Adds a record; it replaces an earlier one of the same cell. Raises: StoreError."""
        self._edit(lambda records: [r for r in records if identity(r) != identity(record)] + [record], record)

    def forget(self, keys: Sequence[str], records: Sequence[str]) -> None:
        """Removes blocks and records.

        Args:
            keys: of the cells whose blocks to remove.
            records: keys of the records to remove.

        Raises:
            StoreError: the records can't be written.
        """
        for key in keys:
            shutil.rmtree(self.path / "blocks" / key, ignore_errors=True)
        removed = set(records)
        self._edit(lambda present: [r for r in present if r.key not in removed])

    def has_block(self, key: str, start: int, stop: int) -> bool:
        """Whether there is a file of examples start..stop-1 of a cell."""
        return self._block(key, start, stop).is_file()

    def take_blocks(self, other: Store) -> None:
        """Copies the blocks of another store that this one lacks. Raises: StoreError."""
        for file in sorted(other.path.glob("blocks/*/*.parquet")):
            target = self.path / file.relative_to(other.path)
            if not target.is_file():
                try:
                    data = file.read_bytes()
                except OSError as error:
                    raise StoreError(f"can't read {file}: {reason(error)}") from None
                self._place(target, data)

    def save_shard(self, shard: ShardFile) -> None:
        """Writes which part of a plan the store has. Raises: StoreError."""
        self._place(self.path / "shards" / shard.name, shards.to_bytes(shard))

    def shards(self) -> list[ShardFile]:
        """The parts of plans that the store has. Raises: StoreError for a damaged file."""
        found = []
        for file in sorted(self.path.glob("shards/*.npz")):
            try:
                found.append(shards.from_bytes(file.read_bytes()))
            except (*DAMAGE, BadZipFile, RLBenchError) as error:
                raise StoreError(f"{file} is damaged ({first_line(error)}); run its shard again") from None
        return found

    def _block(self, key: str, start: int, stop: int) -> Path:
        return self.path / "blocks" / key / f"{start}-{stop}.parquet"

    def _edit(self, change: Callable[[list[Record]], list[Record]], present: Record | None = None) -> None:
        with self._lock():
            records, problems = self.records()
            if problems or present is None or present not in records:
                lines = "".join(to_line(r) + "\n" for r in change(records))
                self._place(self.path / "records.jsonl", lines.encode())

    def _place(self, path: Path, data: bytes) -> None:
        try:
            try:
                place(path, data, folder=self.path)
            except OSError as error:
                if error.errno not in FULL or not self.inputs.is_dir():
                    raise
                shutil.rmtree(self.inputs, ignore_errors=True)  # free space: the cache can be computed again
                place(path, data, folder=self.path)
        except OSError as error:
            raise self._refusal(f"can't write {path}", error) from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(self.path / LOCK))
            except OSError as error:
                raise self._refusal(f"can't write results to {self.path}", error) from None
            yield

    def _refusal(self, what: str, error: OSError) -> StoreError:
        hint = "free some space, or choose" if error.errno in FULL else "choose"
        return StoreError(f"{what}: {error.strerror or error}; {hint} another folder with --out")
