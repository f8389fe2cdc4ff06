"""`http:URL` against a real local server: answers, cache, budget, retries, and one line for each bad answer."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from black_boxes import Served, answer_once, describe, linear_scores, serve
from torch import Tensor

from rlbench.core.errors import AnswerError, FieldError, RLBenchError, StoreError
from rlbench.encoders.black_box import transport
from rlbench.encoders.black_box.account import Account
from rlbench.encoders.http import Http
from rlbench.encoders.models import is_path, load_encoder, resolve, resolve_plain


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("RLBENCH_QUERIES", "RLBENCH_HTTP_TOKEN", "RLBENCH_HTTP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as one:
        yield one


def _load(served: Served) -> Http:
    encoder = load_encoder(served.url)
    assert isinstance(encoder, Http)
    return encoder


def _inputs(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_scores_are_the_servers(served: Served) -> None:
    encoder, x = _load(served), _inputs(10)
    found = encoder.classify(x, "image")
    assert np.allclose(found.numpy(), linear_scores(x.numpy()), atol=1e-7)
    assert encoder.knowledge == "score" and encoder.boxes["image"].shape == (1, 8, 8)
    assert "non_differentiable" in encoder.traits


def test_labels_become_plus_and_minus_one() -> None:
    with serve(describe("labels")) as served:
        encoder, x = _load(served), _inputs(10)
        found = encoder.classify(x, "image")
    assert encoder.knowledge == "label"
    assert torch.equal(found.argmax(1), torch.from_numpy(linear_scores(x.numpy()).argmax(1)))
    assert set(found.unique().tolist()) == {-1.0, 1.0} and (found.sum(1) == -2).all()


def test_uint8_inputs_are_rounded_levels() -> None:
    with serve(describe(dtype="uint8")) as served:
        found = _load(served).classify(_inputs(5), "image")
    rounded = (_inputs(5) * 255).round().numpy() / 255
    assert np.allclose(found.numpy(), linear_scores(rounded), atol=1e-6)


def test_an_input_is_asked_once_in_any_process_and_batch(served: Served) -> None:
    x = _inputs(6)
    one = _load(served).classify(torch.cat([x, x[:3]]), "image")
    assert served.inputs == 6
    other = _load(served)
    assert torch.equal(other.classify(x.flip(0), "image"), one[:6].flip(0))
    assert served.inputs == 6 and other.account.used == 6


def test_a_new_version_is_asked_again() -> None:
    with serve() as served:
        _load(served).classify(_inputs(4), "image")
        port = int(served.url.rpartition(":")[2])
    with serve(describe(version="2"), port) as served:
        _load(served).classify(_inputs(4), "image")
        assert served.inputs == 4


def test_requests_have_at_most_the_servers_batch() -> None:
    with serve(describe(batch=4)) as served:
        _load(served).classify(_inputs(10), "image")
    assert served.batches == [4, 4, 2]


def test_the_budget_is_never_exceeded_and_counts_in_the_store(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLBENCH_QUERIES", "10")
    encoder = _load(served)
    encoder.keep_account(tmp_path / "store" / "queries")
    encoder.classify(_inputs(8), "image")
    with pytest.raises(AnswerError, match="8 of 10 queries are spent and 3 more are needed; raise RLBENCH_QUERIES"):
        encoder.classify(_inputs(3, seed=1), "image")
    assert served.inputs == 8
    again = _load(served)
    again.keep_account(tmp_path / "store" / "queries")
    again.classify(_inputs(8), "image")  # known
    again.classify(_inputs(2, seed=2), "image")
    with pytest.raises(AnswerError, match="10 of 10 queries"):
        again.classify(_inputs(1, seed=3), "image")
    assert served.inputs == 10 and again.account.used == 10


def _spend(file: Path, tries: int) -> None:
    for _ in range(tries):
        try:
            Account(file, 50).book(1, "box")
        except AnswerError:
            return


def test_processes_share_a_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_spend, args=(tmp_path / "one.json", 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Account(tmp_path / "one.json", None).used == 50


def test_a_damaged_account_is_one_line(served: Served, tmp_path: Path) -> None:
    encoder = _load(served)
    encoder.keep_account(tmp_path)
    encoder.account.file.write_text('{"used": -3}')
    with pytest.raises(StoreError, match="is damaged, so the queries that were spent are not known"):
        encoder.classify(_inputs(1), "image")
    assert served.inputs == 0


def _change(**changes: object) -> Any:
    return lambda text: json.dumps(json.loads(text) | changes)


SPOILT: dict[str, tuple[Any, str]] = {
    "nonsense": (lambda text: "<html>busy</html>", "answered what is no JSON"),
    "nan": (lambda text: '{"scores": [[NaN, 0, 0, 0]]}', "NaN is not a JSON number"),
    "empty": (lambda text: "", "answered what is no JSON"),
    "list": (lambda text: "[1, 2]", "it must answer"),
    "labels": (_change(scores=None, labels=[1]), "it must answer"),
    "more classes": (_change(scores=[[1, 2, 3, 4, 5]]), "5 scores for an input; it has 4 classes"),
    "fewer classes": (_change(scores=[[1, 2]]), "2 scores for an input; it has 4 classes"),
    "more rows": (_change(scores=[[1, 2, 3, 4]] * 2), "gave 2 answers for 1 inputs"),
    "text": (_change(scores=[["a", 2, 3, 4]]), "not a number below"),
    "huge": (_change(scores=[[1e300, 2, 3, 4]]), "not a number below"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_bad_answer_is_one_line(served: Served, kind: str) -> None:
    encoder, (served.spoil, message) = _load(served), SPOILT[kind]
    with pytest.raises(AnswerError, match=message) as caught:
        encoder.classify(_inputs(1), "image")
    assert "\n" not in str(caught.value) and served.url in str(caught.value)
    served.spoil = None
    assert encoder.classify(_inputs(1), "image").shape == (1, 4)  # a bad answer is not kept


@pytest.mark.parametrize(
    ("labels", "shown"), [([4], "4"), ([-1], "-1"), ([1.5], "1.5"), ([True], "True"), (["a"], "'a'")]
)
def test_a_label_out_of_range_is_one_line(labels: list[object], shown: str) -> None:
    with serve(describe("labels")) as served:
        encoder = _load(served)
        served.spoil = _change(labels=labels)
        with pytest.raises(AnswerError, match=f"answered the label {shown}; labels are whole numbers, 0 to 3"):
            encoder.classify(_inputs(1), "image")


def test_a_failing_server_is_tried_again_and_each_try_counts(served: Served) -> None:
    encoder, left = _load(served), [None, None]
    served.spoil = lambda text: left.pop() if left else text
    assert encoder.classify(_inputs(3), "image").shape == (3, 4)
    assert served.inputs == encoder.account.used == 9
    served.spoil = lambda text: None
    with pytest.raises(AnswerError, match=r"answered with status 500 .*\(4 tries\)"):
        encoder.classify(_inputs(1, seed=5), "image")
    assert served.inputs == encoder.account.used == 13


def test_retries_stop_at_the_budget(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_QUERIES", "5")
    encoder = _load(served)
    served.spoil = lambda text: None
    with pytest.raises(AnswerError, match="4 of 5 queries are spent and 2 more are needed"):
        encoder.classify(_inputs(2), "image")
    assert served.inputs == 4


def test_a_late_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as served:
        monkeypatch.setenv("RLBENCH_HTTP_TIMEOUT", "0.1")
        encoder = _load(served)
        served.delay = 0.5
        with pytest.raises(AnswerError, match=r"gave no answer within 0.1 s \(4 tries\)"):
            encoder.classify(_inputs(1), "image")
        monkeypatch.setenv("RLBENCH_HTTP_TIMEOUT", "soon")
        with pytest.raises(FieldError, match="RLBENCH_HTTP_TIMEOUT is 'soon'"):
            load_encoder(served.url)


def test_a_server_that_is_gone_is_one_line() -> None:
    with serve() as served:
        encoder = _load(served)
    with pytest.raises(AnswerError, match="can't be asked: Connection refused"):
        encoder.classify(_inputs(1), "image")
    with pytest.raises(RLBenchError, match="can't be asked"):
        load_encoder(served.url)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": 2}, "protocol is 2; this rlbench speaks 1"),
        ({"answers": "logits"}, "answers is 'logits'; it must be one of scores, labels"),
        ({"classes": ["a"]}, "two or more different names"),
        ({"classes": ["a", "A "]}, "can't be told apart"),
        ({"modality": "smell"}, "modality is 'smell'"),
        ({"shape": [1, "8"]}, "shape is"),
        ({"shape": [8, 8]}, "shape"),
        ({"low": 2}, "low below high"),
        ({"batch": 0}, "batch is 0"),
        ({"colour": 1}, "has no field 'colour'"),
    ],
)
def test_a_wrong_description_is_one_line(changes: dict[str, object], message: str) -> None:
    with serve(describe(**changes)) as served, pytest.raises(RLBenchError, match=message) as caught:
        load_encoder(served.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://", "no URL"),
        ("http://host:0", "no URL"),
        ("http://host:99999", "no URL"),
        ("http://a b", "no URL"),
        ("http://user:secret@localhost:1", "would be recorded"),
    ],
)
def test_a_wrong_url_is_one_line(name: str, message: str) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        load_encoder(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("budget", ["ten", "-1", "1.5", "9" * 20])
def test_a_wrong_budget_is_one_line(served: Served, monkeypatch: pytest.MonkeyPatch, budget: str) -> None:
    monkeypatch.setenv("RLBENCH_QUERIES", budget)
    with pytest.raises(FieldError, match=r"RLBENCH_QUERIES is .*whole number of queries"):
        load_encoder(served.url)


def test_both_spellings_name_one_server(served: Served) -> None:
    assert load_encoder(f"http:{served.url}").name == _load(served).name  # type: ignore[attr-defined]
    assert resolve(served.url).name == served.url and not is_path(served.url)


def test_a_file_must_not_name_a_server() -> None:
    with pytest.raises(RLBenchError, match="a record names the encoder http://a, which would send data to a server"):
        resolve_plain("http://a", "a record")


def test_a_redirect_is_not_followed(served: Served) -> None:
    said = rf"status 302 Found, a redirect to '{served.url}', which is not followed; give that URL"
    with answer_once(302, "Location", served.url) as url, pytest.raises(AnswerError, match=said):
        load_encoder(url)
