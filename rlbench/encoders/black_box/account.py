"""Queries that cost something: a budget that is never exceeded, and answers that are never paid for twice."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlbench.core.documents import load_json, read_text
from rlbench.core.errors import AnswerError, FieldError, StoreError, quote
from rlbench.core.files import find_cache_folder, hold_lock, place

BUDGET = "RLBENCH_QUERIES"  # the environment's name of the budget
_PART = 500  # keys per question to SQLite


def read_budget() -> int | None:
    """The most inputs that may be sent, from the environment; None: no limit. Raises: FieldError."""
    text = os.environ.get(BUDGET, "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise FieldError(f"{BUDGET} is {quote(text)}; it must be a whole number of queries, such as 100000")
    return int(text)


@dataclass(frozen=True)
class Account:
    """The number of inputs that were sent, in a file that processes share.

    Attributes:
        file: in a store, or in the cache for queries outside a run.
        budget: the most inputs that all of them may send; None: no limit.
    """

    file: Path
    budget: int | None

    @property
    def used(self) -> int:
        """The number of inputs sent so far. Raises: StoreError: the file is damaged."""
        try:
            used = load_json(read_text(self.file))["used"]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError):
            used = None
        if type(used) is not int or used < 0:
            raise StoreError(
                f'{self.file} is damaged, so the queries that were spent are not known; write {{"used": NUMBER}} to it'
            )
        return used

    def book(self, n: int, source: str) -> None:
        """Books n inputs before they are sent.

        Raises:
            AnswerError: the budget has no room for them; nothing is booked.
            StoreError: the file is damaged or can't be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with hold_lock(self.file.with_suffix(".lock")):
                used = self.used
                if self.budget is not None and used + n > self.budget:
                    raise AnswerError(
                        f"{source}: {used} of {self.budget} queries are spent and {n} more are needed; raise {BUDGET} "
                        "and run again, which pays for no answer twice"
                    )
                place(self.file, json.dumps({"used": used + n}).encode(), sync=False)
        except OSError as error:
            raise StoreError(f"can't count queries in {self.file}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Answers:
    """Answers by the hash of what was asked, in a file of the cache folder (RLBENCH_CACHE)."""

    name: str

    @property
    def file(self) -> Path:
        """Of the answers of one box."""
        return find_cache_folder() / "answers" / f"{self.name}.sqlite"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=30)) as base, base:
                base.execute("CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, answer BLOB)")
                yield base
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"can't keep answers in {self.file}: {error}; set RLBENCH_CACHE to a folder that can be written, or "
                "remove the file"
            ) from None

    def find(self, questions: Sequence[bytes]) -> dict[bytes, bytes]:
        """The known answers. Raises: StoreError."""
        found = dict[bytes, bytes]()
        with self._open() as base:
            for first in range(0, len(questions), _PART):
                part = questions[first : first + _PART]
                marks = ",".join("?" * len(part))
                found |= dict(base.execute(f"SELECT question, answer FROM answers WHERE question IN ({marks})", part))
        return found

    def add(self, new: Mapping[bytes, bytes]) -> None:
        """Keeps these answers. Raises: StoreError."""
        with self._open() as base:
            base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", new.items())
