"""What a server may send besides a plain answer: a request for a pause, a compressed body, half of a body."""

from __future__ import annotations

from pathlib import Path

import pytest
from black_boxes import answer_once

from rlbench.core.errors import AnswerError
from rlbench.encoders.black_box import transport
from rlbench.encoders.models import load_encoder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize(
    ("asked", "pauses"), [("7", [7.0]), ("9999", [120.0]), ("0", [0.5]), ("Fri, 27 Nov 2026 10:00:00 GMT", [0.5])]
)
def test_a_server_may_ask_for_a_pause(asked: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", slept.append)
    with answer_once(429, "Retry-After", asked) as url, pytest.raises(AnswerError):
        transport.Transport(url, timeout=0.5, retries=1).get()
    assert slept == pauses


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_compressed_answer_is_one_line(coding: str) -> None:
    said = rf"its answer is compressed \('{coding}'\); turn the server's compression"
    with answer_once(200, "Content-Encoding", coding) as url, pytest.raises(AnswerError, match=said):
        load_encoder(url)


@pytest.mark.parametrize(("retries", "said"), [(0, "was cut off, 9,998 bytes before the end$"), (1, r"\(2 tries\)$")])
def test_an_answer_that_is_cut_off_is_asked_again(retries: int, said: str) -> None:
    with answer_once(200, "Content-Length", "10000") as url, pytest.raises(AnswerError, match=said):
        transport.Transport(url, timeout=0.5, retries=retries).get()
