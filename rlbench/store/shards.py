"""Shard files: the plan that a store has a part of, so that the parts can be joined without models and data.

<store>/shards/<plan>-<index>-of-<count>.npz    the header, as JSON in bytes, and the captions of retrieval tasks
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlbench.core import Record
from rlbench.core.documents import load_json
from rlbench.store.keys import content_hash
from rlbench.store.lines import from_line, to_line

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Outline:
    """A record before its blocks are there.

    Attributes:
        record: the record without counts; its error says that it is incomplete.
        keys: of the cells whose blocks make it up; several for a worst case.
        own: whether they are the record's own cell, so that their passes are its.
        spans: the (start, stop) of the blocks.
        gallery: for retrieval, the captions' embeddings (M, D) float32 and their classes (M,) int64.
        whole: whether all media of the gallery are evaluated.
        medium: what the gallery holds: "text", or a sensor.
    """

    record: Record
    keys: tuple[str, ...]
    own: bool
    spans: tuple[Span, ...]
    gallery: tuple[np.ndarray, np.ndarray] | None = None
    whole: bool = True
    medium: str = "text"

    def values(self) -> list[Any]:
        """Everything but the gallery, as JSON."""
        return [to_line(self.record), self.keys, self.own, self.spans, self.whole, self.medium]


@dataclass(frozen=True, eq=False)
class ShardFile:
    """One shard of a plan: `index` of `count`, from 1."""

    index: int
    count: int
    outlines: tuple[Outline, ...]

    @property
    def plan(self) -> str:
        """The plan's hash: shards of one plan have the same."""
        return content_hash([self.count, [outline.values() for outline in self.outlines]])

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.plan}-{self.index}-of-{self.count}.npz"


def to_bytes(shard: ShardFile) -> bytes:
    """Serialises a shard's file."""
    galleries: dict[int, int] = {}
    arrays: dict[str, np.ndarray] = {}
    cells = []
    for outline in shard.outlines:
        at = None
        if outline.gallery is not None:
            at = galleries.setdefault(id(outline.gallery[0]), len(galleries))
            arrays[f"anchors{at}"], arrays[f"owners{at}"] = outline.gallery
        cells.append([*outline.values(), at])
    header = json.dumps({"index": shard.index, "count": shard.count, "cells": cells})
    sink = io.BytesIO()
    np.savez_compressed(sink, header=np.frombuffer(header.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def from_bytes(data: bytes) -> ShardFile:
    """Parses a shard's file. Raises: one of `blocks.DAMAGE`: it is damaged."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = load_json(arrays["header"].tobytes().decode())
        return ShardFile(
            int(header["index"]), int(header["count"]), tuple(_outline(cell, arrays) for cell in header["cells"])
        )


def _outline(cell: Sequence[Any], arrays: Any) -> Outline:
    line, keys, own, spans, whole, medium, at = cell
    gallery = None if at is None else (arrays[f"anchors{at}"], arrays[f"owners{at}"])
    places = tuple((int(a), int(b)) for a, b in spans)
    return Outline(from_line(line), tuple(map(str, keys)), bool(own), places, gallery, whole, str(medium))
