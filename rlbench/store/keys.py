"""Content hashes."""

from __future__ import annotations

import hashlib
import json


def content_hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_key(key: str, n: int) -> str:
    """The cell's key with its number of examples."""
    return content_hash([key, n])
