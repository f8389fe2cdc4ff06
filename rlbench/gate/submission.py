"""Submissions: claims about a model on a suite, as strict JSON (leaderboards/entries/*.json; docs/submit.md).

{"entry": 2, "model": "rlbind:mini", "summary": "...", "source": "https://...", "suite": "thermal",
 "suite_version": 1, "checkpoint": "<sha256>", "claims": [{"perturbation": {"kind": "clean"}, "n": 500,
 "n_correct": 469, "protocol": "...", "data": "...", "anchors": "...", "flags": "<n bits in hexadecimal>"}],
 "provenance": {...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlbench.core import Field, Perturbation, Record
from rlbench.core.documents import load_json, read_text, reason
from rlbench.core.errors import LINE, FieldError, StoreError, UnknownName, find_hidden, first_line, quote
from rlbench.core.suite import load_suites
from rlbench.core.validation import check_fields
from rlbench.store.flags import unpack
from rlbench.store.lines import MOST
from rlbench.store.perturbations import from_mapping, to_mapping
from rlbench.store.records import check_namesakes

VERSION = 2  # of the file format
SIZE = 2**24  # the most bytes of a file
CLAIMS = 1000  # the most claims of a submission
HASHES = ("protocol", "data", "anchors")
PROVENANCE = ("rlbench", "torch", "numpy", "python", "device", "dtype", "soundness")  # copied from the records
_CONTACT = re.compile(r"[^\s@/]+@[^\s@/]+\.\w+")
_SOURCE = re.compile(r"https?://[\w.-]+(:\d+)?(/\S*)?|bundled")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The claim that n_correct of n examples are correct under a perturbation.

    Attributes:
        perturbation: of the cell.
        n: examples.
        n_correct: correct examples.
        protocol: the hash of the protocol.
        data: the hash of the examples.
        anchors: the hash of the text embeddings.
        flags: which examples are correct, as in `core.Record`; None if the submission does not say.
    """

    perturbation: Perturbation
    n: int
    n_correct: int
    protocol: str
    data: str
    anchors: str
    flags: str | None = None

    def __post_init__(self) -> None:
        what = f"claim '{self.perturbation}'"
        if not 1 <= self.n <= MOST or not 0 <= self.n_correct <= self.n:
            allowed = f"it must be 0 to n, and n must be 1 to {MOST:,}"
            raise FieldError(f"{what}: n_correct is {self.n_correct} of n = {self.n}; {allowed}", "n_correct")
        for name in HASHES:
            _check_text(name, getattr(self, name), f"{what}: ")
        if self.flags is not None and self.correct().sum() != self.n_correct:
            has = f"flags has {self.correct().sum()} examples correct"
            raise FieldError(f"{what}: {has}; n_correct says {self.n_correct}", "flags")

    def correct(self) -> np.ndarray:
        """(n,) bool, the decoded flags. Raises: FieldError if they are missing or wrong."""
        try:
            return unpack(self.flags or "", self.n)
        except FieldError as error:
            raise FieldError(f"claim '{self.perturbation}': {error}", error.field) from None


def _check_text(name: str, text: str, what: str = "") -> None:
    """Raises FieldError if the text is empty, too long or not one line."""
    if not text.strip() or len(text) > LINE or find_hidden(text):
        raise FieldError(f"{what}{name} is {quote(text)}; it must be one line of at most {LINE} characters", name)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A model's claims on one suite.

    Attributes:
        entry: the version of the file format.
        model: its name.
        summary: a description in one line.
        source: the URL of the weights, or "bundled".
        suite: its name or file; NAME:MODALITY for one of several parts.
        suite_version: its version.
        checkpoint: the hash of the weights.
        claims: one per cell.
        provenance: versions, device, dtype and soundness badge of the run.
    """

    entry: int
    model: str
    summary: str
    source: str
    suite: str
    suite_version: int
    checkpoint: str
    claims: tuple[Claim, ...]
    provenance: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entry != VERSION:
            raise FieldError(f"entry is {self.entry}; this rlbench reads version {VERSION}")
        for name in ("model", "summary", "source", "suite", "checkpoint"):
            _check_text(name, getattr(self, name))
        if not _SOURCE.fullmatch(self.source):
            raise FieldError(
                f'source is {quote(self.source)}; it must be the URL of the weights, or "bundled"', "source"
            )
        if self.suite_version < 1:
            raise FieldError(f"suite_version is {self.suite_version}; it must be at least 1", "suite_version")
        if not 1 <= len(self.claims) <= CLAIMS:
            raise FieldError(f"claims is empty or too long; it must have 1 to {CLAIMS} cells", "claims")
        for name, value in self.provenance.items():
            _check_text("provenance", f"{name} {value}")
        names = [str(claim.perturbation) for claim in self.claims]
        if twice := {name for name in names if names.count(name) > 1}:
            raise FieldError(f"claims has {min(twice)!r} twice")
        texts = (self.model, self.summary, self.source, *map(str, self.provenance.values()))
        if found := next((hit.group() for text in texts if (hit := _CONTACT.search(text))), None):
            raise FieldError(f"{found!r} looks like a contact address, which a submission must not contain; remove it")


def read_submission(path: Path) -> Submission:
    """Reads a JSON file.

    Raises:
        StoreError: it can't be read or is not JSON.
        FieldError: a field is wrong; the message names the file and the field.
    """
    try:
        raw = load_json(read_text(path, SIZE))
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"can't read {path}: {reason(error)}") from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({first_line(error)}); `rlbench entry` writes one") from None
    try:
        return _parse(raw)
    except FieldError as error:
        raise FieldError(f"{path}: {error}") from None


def _parse(raw: Any) -> Submission:
    values = _check_object(raw, "a submission")
    if values.get("entry") == 1:
        raise FieldError("entry is 1, written by an older rlbench; `rlbench entry` writes version 2", "entry")
    listed = values.get("claims")
    if not isinstance(listed, list):
        raise FieldError("claims must be a list of objects")
    claims = [_parse_claim(_check_object(one, "a claim"), number) for number, one in enumerate(listed, 1)]
    fields: dict[str, Any] = check_fields(Submission, values | {"claims": claims}, "entry")
    return Submission(**fields)


def _parse_claim(part: dict[str, Any], number: int) -> Claim:
    if "perturbation" in part:
        try:
            part = part | {"perturbation": from_mapping(part["perturbation"])}
        except FieldError as error:
            raise FieldError(f"claim {number}: {error}", error.field) from None
    return Claim(**check_fields(Claim, part, f"claim {number}"))  # type: ignore[arg-type]


def _check_object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError(f"{what} must be a JSON object; it is {quote(value)}")
    return value


class Chosen(NamedTuple):
    """What a user names: a suite, or one of its parts.

    Attributes:
        name: that records have of the suite.
        part: a modality or a task; "" for all.
    """

    name: str
    part: str

    @classmethod
    def parse(cls, suite: str) -> Chosen:
        """NAME or FILE.yaml, also with :MODALITY or :TASK. Raises: RLBenchError: no such file or part."""
        path, _, part = suite.partition(":")
        return cls(load_suites(suite)[0].name if path.endswith((".yaml", ".yml")) else path, part)

    def has(self, record: Record) -> bool:
        """Whether a record is of it."""
        return record.suite == self.name and self.part in ("", record.modality, record.task)


def _name_part(suite: str, task: str) -> str:
    """A suite with the one of its tasks that is claimed, if it is known here and has several."""
    try:
        several = len(load_suites(suite)) > 1
    except UnknownName:
        return suite
    return f"{suite.partition(':')[0]}:{task}" if several else suite


def make_submission(records: Iterable[Record], *, model: str, suite: str, source: str, summary: str) -> Submission:
    """Turns the records of a model on a suite into claims.

    Args:
        records: of which those of other models and suites are ignored.
        model: its name.
        suite: its name or file; NAME:MODALITY or NAME:TASK for one of several parts.
        source: the URL of the weights, or "bundled".
        summary: a description in one line.

    Raises:
        StoreError: there are no such records, or of several tasks or two models of the name, or a cell failed.
        FieldError: a field is wrong, as the source.
    """
    chosen = Chosen.parse(suite)
    own = [record for record in records if record.model == model and chosen.has(record)]
    if len(tasks := sorted({record.task for record in own})) > 1:
        example = f"{suite.partition(':')[0]}:{tasks[0]}"
        raise StoreError(f"{suite} has several tasks; an entry claims one, such as {example}")
    if not own:
        raise StoreError(f"there are no records of {model} on {suite}; rlbench run --suite {suite} --model {model}")
    check_namesakes(own)
    if failed := next((record for record in own if record.error is not None), None):
        raise StoreError(f"{failed.perturbation} failed and can't be claimed: {failed.error}")
    return Submission(
        entry=VERSION,
        model=model,
        summary=summary,
        source=source,
        suite=_name_part(suite, own[0].task),
        suite_version=own[0].suite_version,
        checkpoint=str(own[0].provenance.get("checkpoint", "")),
        claims=tuple(_make_claim(record) for record in own),
        provenance={name: own[0].provenance[name] for name in PROVENANCE if name in own[0].provenance},
    )


def _make_claim(record: Record) -> Claim:
    hashes = {name: str(record.provenance.get(name, "")) for name in HASHES}
    counts = {"n": record.n, "n_correct": record.n_correct or 0, "flags": record.flags}
    return Claim(perturbation=record.perturbation, **counts, **hashes)  # type: ignore[arg-type]


def to_json(submission: Submission) -> str:
    """The submission as indented JSON, for version control."""
    claims = [vars(claim) | {"perturbation": to_mapping(claim.perturbation)} for claim in submission.claims]
    return json.dumps(vars(submission) | {"claims": claims}, indent=1, ensure_ascii=False) + "\n"
