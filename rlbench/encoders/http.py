"""A model behind a server that answers scores or labels: `http:URL`, such as http://localhost:8000.

The protocol, version 1, is JSON over HTTP:

- GET URL answers the description, see `exchange.Description`:
  {"protocol": 1, "modality": "image", "shape": [3, 224, 224], "answers": "scores", "classes": ["cat", "dog"],
  "name": "my model", "version": "3", "low": 0, "high": 1, "dtype": "float32", "batch": 64}
- POST URL with {"inputs": {"dtype": "float32", "shape": [N, 3, 224, 224], "data": BASE64}}, the bytes in C order and
  little-endian, answers {"scores": [[...], ...]}, C finite numbers per input, or {"labels": [...]}, an index each.

`examples/http_server.py` is a server in one file. Every answer is kept by a hash of its input in the cache folder
(RLBENCH_CACHE), so that no run pays for it twice; change the description's `version` when the model changes. The
environment may set RLBENCH_QUERIES, the most inputs that may be sent, retries included (the store counts them);
RLBENCH_HTTP_TOKEN, sent as a bearer token; RLBENCH_HTTP_TIMEOUT, the seconds to wait for an answer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Modality, Trait
from rlbench.core.errors import FieldError, ModalityError, RLBenchError, quote
from rlbench.core.files import find_cache_folder
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.encoders.black_box.account import Account, Answers, read_budget
from rlbench.encoders.black_box.classes import WithoutPrompts, scores_of_labels
from rlbench.encoders.black_box.exchange import Description, parse_answers, parse_description, to_request, to_wire
from rlbench.encoders.black_box.transport import Transport

_ACCOUNTS: WeakKeyDictionary[Http, Account] = WeakKeyDictionary()  # not fields: they are no part of an identity


class Http(WithoutPrompts):
    """A server as an encoder with fixed classes; it is asked only what the cache does not know.

    Attributes:
        about: what the server says of itself.
        transport: sends the requests.
    """

    traits: frozenset[Trait] = frozenset({"non_differentiable"})
    sha256: Mapping[Modality, str] = {}

    def __init__(self, about: Description, transport: Transport) -> None:
        self.about, self.transport = about, transport
        facts = f"{transport.url} {about!r}"
        self.name = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.keep_account(find_cache_folder() / "queries")

    @property
    def knowledge(self) -> Knowledge:
        return "score" if self.about.answers == "scores" else "label"

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {self.about.modality: self.about.box}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.about.classes

    @property
    def account(self) -> Account:
        """Where its queries are counted."""
        return _ACCOUNTS[self]

    def keep_account(self, folder: Path) -> None:
        """Counts the queries in this folder from now on."""
        _ACCOUNTS[self] = Account(folder / f"{self.name}.json", read_budget())

    def classify(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) float32 scores, or 1 for the label and -1 for other classes.

        Raises:
            ModalityError: another modality.
            AnswerError: no usable answer in time, or the budget is spent.
        """
        if modality != self.about.modality:
            raise ModalityError(f"{self.transport.url} has no {modality}; it has {self.about.modality}")
        inputs = to_wire(x.detach().cpu().numpy(), self.about)
        questions = [hashlib.sha256(row.tobytes()).digest() for row in inputs]
        known = Answers(self.name).find(list(dict.fromkeys(questions)))
        new = [k for k, question in enumerate(questions) if question not in known]
        new = list({questions[k]: k for k in new}.values())  # equal inputs are asked once
        for first in range(0, len(new), self.about.batch):
            part = new[first : first + self.about.batch]
            known |= self._ask(inputs[part], [questions[k] for k in part])
        if self.about.answers == "labels":
            labels = np.array([np.frombuffer(known[question], "<i8")[0] for question in questions])
            return scores_of_labels(torch.from_numpy(labels.astype(np.int64)), len(self.classes))
        rows = [np.frombuffer(known[question], "<f8") for question in questions]
        found = np.stack(rows) if rows else np.zeros((0, len(self.classes)))
        return torch.from_numpy(found.astype(np.float32))

    def _ask(self, inputs: np.ndarray, questions: list[bytes]) -> dict[bytes, bytes]:
        """Sends inputs (K, *shape), and keeps the answers."""
        n, url = len(inputs), self.transport.url
        data = self.transport.post(to_request(inputs), lambda: self.account.book(n, url))
        rows = parse_answers(data, n, self.about, url)
        found = {question: row.tobytes() for question, row in zip(questions, rows, strict=True)}
        Answers(self.name).add(found)
        return found


@register("encoder", "http:URL", "https:URL")
def http(*, name: str, source: str) -> Http:
    """A server that answers scores or labels: http://localhost:8000, by the JSON protocol of `rlbench.encoders.http`.

    Args:
        name: "http:URL" or "https:URL".
        source: the URL, with or without the scheme.

    Raises:
        FieldError: the URL or a setting in the environment is wrong.
        RLBenchError: the server can't be reached, or its description can't be used.
    """
    url = source if source.startswith(("http://", "https://")) else f"{name.partition(':')[0]}:{source}"
    try:
        parts = urlsplit(url)
        good = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not url.isascii() or "#" in url or any(c.isspace() for c in url):
        raise FieldError(f"{quote(url)} is no URL of a server; give one such as http://localhost:8000/model")
    if parts.username is not None:
        raise FieldError("a user name or password in a URL would be recorded; give a token by RLBENCH_HTTP_TOKEN")
    transport = Transport(url)
    if timeout := os.environ.get("RLBENCH_HTTP_TIMEOUT"):
        transport = replace(transport, timeout=_read_seconds(timeout))
    try:
        return Http(parse_description(transport.get(), url), transport)
    except RLBenchError:
        raise
    except ValueError as error:
        raise RLBenchError(f"{url}: {error}") from error


def _read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise FieldError(f"RLBENCH_HTTP_TIMEOUT is {quote(text)}; it must be a number of seconds above 0")
    return seconds
