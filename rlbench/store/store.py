"""The result store: blocks (parquet) and records (JSON lines); atomic, resumable, shared by concurrent runs.

    <store>/blocks/<cell key>/<start>-<stop>.parquet    one row an example: the truth
    <store>/records.jsonl                               one line a finished cell, computed from its blocks

A file is written next to its place, synced and moved there, so that a reader or a killed writer never leaves
half of one. A block carries the digest of its contents: one that does not match is computed again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlbench.core import Record
from rlbench.core.documents import reason
from rlbench.core.errors import StoreError, first_line
from rlbench.core.files import FULL, LOCK, clear, hold_lock, place
from rlbench.store.blocks import DAMAGE, Block, from_bytes, to_bytes
from rlbench.store.lines import identity, to_line
from rlbench.store.records import parse


class Store:
    """A folder of blocks and records."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.inputs = self.path / "inputs"  # corrupted inputs, for the next model; may be removed at any time

    def check(self, *, fresh: bool = False) -> list[str]:
        """One sentence for each line of records that can't be used; writes nothing.

        Args:
            fresh: `prepare` will move records of an older format aside.

        Raises: StoreError where the folder could not be written, or has records of an older format.
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
        """Makes the folder, proves that it can be written, and clears what killed writers left.

        Args:
            fresh: records of an older format become `records-1.jsonl.old`.

        Raises: StoreError.
        """
        self.check(fresh=fresh)
        with self._locked():
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
        """The block, or None where there is none.

        Raises: StoreError when it is damaged: to be computed again.
        """
        path = self._block(key, start, stop)
        try:
            return from_bytes(path.read_bytes(), key, start, stop)
        except FileNotFoundError:
            return None
        except DAMAGE as error:
            raise StoreError(f"{path} is damaged ({first_line(error)}); it is computed again") from None

    def save(self, key: str, start: int, stop: int, block: Block) -> None:
        """Writes the block whole. Raises: StoreError."""
        self._place(self._block(key, start, stop), to_bytes(block, key, start))

    def records(self) -> tuple[list[Record], list[str]]:
        """The records, and one sentence for each line that can't be used. Raises: StoreError."""
        try:
            return parse(self.path / "records.jsonl")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise StoreError(f"can't read {self.path / 'records.jsonl'}: {reason(error)}") from None

    def append(self, record: Record) -> None:
        """Adds the record, in the place of one of the same cell. Raises: StoreError."""
        self._edit(lambda records: [r for r in records if identity(r) != identity(record)] + [record], record)

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
                lines = "".join(to_line(r) + "\n" for r in change(records))
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
                stack.enter_context(hold_lock(self.path / LOCK))
            except OSError as error:
                raise self._refusal(f"can't write results to {self.path}", error) from None
            yield

    def _refusal(self, what: str, error: OSError) -> StoreError:
        hint = "free some space, or choose" if error.errno in FULL else "choose"
        return StoreError(f"{what}: {error.strerror or error}; {hint} another folder with --out")
