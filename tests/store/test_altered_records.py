"""Altered records and blocks are refused with an error that names the file, the line and the field."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns import column
from commands import Call, fails
from hypothesis import given
from hypothesis import strategies as st
from made import made
from stored import KEY, block

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Perturbation, Surrogate, Threat, Worst
from rlbench.core.errors import FieldError, StoreError
from rlbench.core.threat import parse_eps
from rlbench.store.blocks import Block, to_bytes
from rlbench.store.lines import from_line, to_line, to_values
from rlbench.store.perturbations import from_columns, from_mapping, is_bound, simplify, to_columns, to_mapping
from rlbench.store.records import read_records
from rlbench.store.store import Store

RECORD = made("a:mini", "pgd linf 4/255", np.arange(12) % 3 > 0)
TEXT = ["", " ", "a\nb", "\x1b[31m", "\ud800", "x" * 5000, None, 1, [], {}]
COUNT = [None, True, -1, 1.5, "1", 10**30, []]
ALTERED: dict[str, list[Any]] = {
    "key": [*TEXT, "g" * 16, "0" * 15],
    "suite": TEXT,
    "suite_version": [*COUNT, 0],
    "task": TEXT,
    "modality": [*TEXT, "smell"],
    "model": TEXT,
    "backbone": TEXT,
    "perturbation": [
        *TEXT,
        {"kind": "fog"},
        {"kind": []},
        {"kind": "clean", "severity": 1},
        {"kind": "corrupted", "corruption": "fog"},
        {"kind": "corrupted", "corruption": "fog x", "severity": 1},
        *({"kind": "corrupted", "corruption": "fog", "severity": s} for s in (0, 6, True, "1", 1.0)),
        {"kind": "corrupted", "corruption": "fog", "severity": 1, "corruption_fields": {"a": []}},
        {"kind": "adversarial", "attack": "pgd", "norm": "linf"},
        {"kind": "worst", "norm": "l3", "eps": "1/255"},
        {"kind": "worst", "norm": "linf", "eps": "1/255", "attack": "pgd"},
        {"kind": "worst", "norm": "linf", "eps": "1/255", "mode": "fast"},
        {"kind": "worst", "norm": "linf", "eps": "1/255", "sensors": "thermal"},
        {"kind": "adversarial", "attack": "pgd", "norm": "linf", "eps": "1/255", "mode": "cascade"},
        *({"kind": "worst", "norm": "linf", "eps": e} for e in ("4/0", "nan", "٣", "-1/255", "", 0.1, None, "4 /255")),
    ],
    "format": [*TEXT, 0, 1, 3, 2.0, True, "2"],
    "n": [*COUNT, 0, 20, 10**9],
    "n_correct": [True, -1, 13, 7, None],
    "error": ["", 1, "crashed"],
    "flags": [None, "", "zz", "b6d", "b6d0d0", "b6df", "0xb6", "ffff", 1],
    "forwards": COUNT,
    "backwards": COUNT,
    "provenance": [None, [], {}, {"seed": 0}],
}
FACTS: dict[str, list[Any]] = {
    "seed": [-1, "0", None],
    "soundness": ["solid", 1, None],
    "clustered_low": [-0.1, 2, "a"],
    "certified_low": [-0.1, 0.5, "a"],
    "sources": [0, "x", 13],
    "mode": ["x"],
    "x-to-text R@1": [1.1, "a"],
    "data": [1, None, "\x07"],
    "mine": [[1], {}, "a\nb", 10**30],
    "": [1],
}


def _refused(tmp_path: Path, values: dict[str, Any]) -> str:
    file = tmp_path / "r.jsonl"
    file.write_text(to_line(RECORD) + "\n" + json.dumps(values) + "\n")
    with pytest.raises(StoreError, match="line 2, is not a record") as error:
        read_records([file])
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_field_is_named(tmp_path: Path, name: str) -> None:
    values = to_values(replace(RECORD, key="f" * 16))
    for value in ALTERED[name]:
        assert any(word in _refused(tmp_path, {**values, name: value}) for word in (name, "flags", "n_correct"))
    del values[name]
    if name not in ("flags",):
        assert name in _refused(tmp_path, values)


@pytest.mark.parametrize("name", FACTS)
def test_an_altered_fact_is_named(tmp_path: Path, name: str) -> None:
    for value in FACTS[name]:
        values = {**to_values(RECORD), "provenance": {**RECORD.provenance, name: value}}
        assert repr(name) in (said := _refused(tmp_path, values)) or f"provenance: {name}" in said


def test_a_second_line_with_another_result_of_the_same_cell_is_refused(tmp_path: Path) -> None:
    file, other = tmp_path / "r.jsonl", replace(RECORD, flags="fff0", n_correct=12)
    file.write_text(f"{to_line(RECORD)}\n{to_line(RECORD)}\n")
    assert read_records([file]) == [RECORD]
    file.write_text(f"{to_line(RECORD)}\n{to_line(other)}\n")
    with pytest.raises(StoreError, match="line 2, is not a record"):
        read_records([file])


@given(st.data())
def test_a_line_with_random_bytes_gives_a_record_or_an_error(data: st.DataObject) -> None:
    line = bytearray(to_line(RECORD).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = from_line(line.decode())
    except (ValueError, FieldError) as error:
        assert str(error)
    else:
        assert from_line(to_line(found)) == found


@pytest.mark.parametrize("command", ["leaderboard --records", "plot", "check --records", "compare a --records"])
def test_every_command_refuses_the_line(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "r.jsonl").write_text(to_line(replace(RECORD, n=20)) + "\n")
    words = command.split() + ["r.jsonl"] + (["b"] if "compare" in command else [])
    fails(call(*words), "r.jsonl, line 1", "flags")


LADDER = (Fraction(1, 255), Fraction(2, 255))
PGD = Adversarial("pgd", Threat("linf", Fraction(4, 255), ("thermal",)), (("steps", 3),), LADDER, descending=True)
FOG = Corrupted("fog", 3, (("kind", "thick"), ("rate", 0.5), ("warm", True)), ("image", "depth"))
PERTURBATIONS = [
    Clean(),
    FOG,
    PGD,
    replace(PGD, descending=False),
    replace(PGD, surrogate=Surrogate("languagebind", "ab12", "cd34")),
    Composed(FOG, replace(PGD, surrogate=Surrogate("languagebind"))),
    Composed(FOG, PGD),
    Composed(Corrupted("fog", 1), PGD),
    Worst(Threat("l2", Fraction(1, 2)), mode="descending"),
    Worst(PGD.threat, (PGD, replace(PGD, attack="fgsm")), "cascade"),
    Worst(Threat("linf", Fraction("0.01234567890123456789"))),
]


@pytest.mark.parametrize("one", PERTURBATIONS, ids=str)
def test_json_of_a_perturbation_round_trips(one: Perturbation) -> None:
    """Except for ladders and a cascade's attacks; its text is unchanged."""
    simple = simplify(one)
    assert from_mapping(json.loads(json.dumps(to_mapping(simple)))) == simple
    assert str(simple) == str(one) and is_bound(simple) == is_bound(one)


@pytest.mark.parametrize(
    "name", ["clean", "fog 3", "pgd(steps=3) l2 0.5 descending", "fog 3 + pgd linf 4/255", "worst l2 1"]
)
def test_columns_of_a_perturbation_round_trip(name: str) -> None:
    one = column(name)
    assert str(one) == name and from_columns(to_columns(one)) == one


def test_simplify_drops_ladders_and_the_attacks_of_a_cascade() -> None:
    assert simplify(PGD) == replace(PGD, ladder=()) != PGD
    assert simplify(Composed(FOG, PGD)) == Composed(FOG, simplify(PGD))  # type: ignore[arg-type]
    cascade = next(p for p in PERTURBATIONS if isinstance(p, Worst) and p.mode == "cascade")
    assert cascade.attacks and simplify(cascade) == replace(cascade, attacks=())


@pytest.mark.parametrize("old", [{"format": 1}, {}])
def test_records_of_format_1_are_refused_with_advice(tmp_path: Path, old: dict[str, int]) -> None:
    values = {k: v for k, v in to_values(RECORD).items() if k != "format"} | {"perturbation": "clean", **old}
    file = tmp_path / "records.jsonl"
    file.write_text(f"{to_line(RECORD)}\n{json.dumps(values)}\n")
    says = (
        r"records\.jsonl, line 2: records of format 1, written by an older rlbench; run the same command with --fresh"
    )
    with pytest.raises(StoreError, match=says):
        read_records([tmp_path])
    store = Store(tmp_path)
    for refuse in (store.check, store.prepare, store.records, lambda: store.append(RECORD)):
        with pytest.raises(StoreError, match=says):
            refuse()
    before = file.read_bytes()
    assert "format 1" in store.check(fresh=True)[0] and file.read_bytes() == before
    store.prepare(fresh=True)
    store.append(RECORD)
    assert read_records([tmp_path]) == [RECORD] and store.check() == []
    assert (tmp_path / "records-1.jsonl.old").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["1e9999999", "1e309", "nan", "inf", "4/0", "1/3/5", "٣/255", "1_0/255", "4 2/255", True]
)
def test_an_eps_that_is_not_a_plain_number_is_refused(text: object) -> None:
    with pytest.raises(FieldError, match="eps is"):
        parse_eps(text)


def _parquet(change: Callable[[pa.Table], pa.Table]) -> bytes:
    table = change(pq.read_table(pa.BufferReader(to_bytes(block(), KEY, 0))))
    pq.write_table(table, sink := pa.BufferOutputStream())
    return bytes(sink.getvalue().to_pybytes())


def _fact(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        facts = json.loads(table.schema.metadata[b"rlbench"]) | {name: value}
        return table.replace_schema_metadata({"rlbench": json.dumps(facts)})

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(
            _fact(name, value)
            for name in ("environment", "evidence", "seconds", "digest")
            for value in (None, 1, "x", [1])
        ),
        lambda t: t.replace_schema_metadata(None),
        lambda t: t.replace_schema_metadata({"rlbench": "[" * 9999}),
        lambda t: t.drop_columns(["margin"]),
        lambda t: t.slice(1),
        *(
            lambda t, n=n: t.set_column(t.column_names.index(n), n, pa.array([None] * 5))
            for n in ("id", "label", "margin")
        ),
    ],
)
def test_a_block_with_altered_columns_or_metadata_is_damaged(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    store = Store(tmp_path)
    store.save(KEY, 0, 5, block())
    (tmp_path / "blocks" / KEY / "0-5.parquet").write_bytes(_parquet(change))
    with pytest.raises(StoreError, match="is damaged"):
        store.block(KEY, 0, 5)


@pytest.mark.parametrize("change", [{"label": np.full(5, -1)}, {"distance": np.full(5, -1.0)}, {"seconds": -1.0}])
def test_a_block_with_impossible_values_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    store, whole = Store(tmp_path), block()
    store.save(KEY, 0, 5, Block(**{**vars(whole), **change}))
    with pytest.raises(StoreError, match="is damaged"):
        store.block(KEY, 0, 5)
