"""Content hashes."""

from __future__ import annotations

import hashlib
import json


def content_hash(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value's JSON; keys are sorted, other types use `str`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_key(key: str, n: int) -> str:
    """The key of a record: the hash of its cell's key and its number of examples."""
    return content_hash([key, n])
