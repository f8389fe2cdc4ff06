"""Pooled rounds: the worst badge stays, and no example counts twice."""

import numpy as np
from stored import FACTS, record

from rlbench.core import Record
from rlbench.store.flags import pack
from rlbench.store.rounds import pool_rounds


def _round(name: str, bits: list[int], **facts: object) -> Record:
    provenance = {**FACTS, "round": name, "data": f"d{name}", **facts}
    flags = pack(np.array(bits, dtype=bool))
    return record(n=len(bits), n_correct=sum(bits), flags=flags, provenance=provenance)


def test_the_worst_badge_of_the_rounds_is_the_pooled_one() -> None:
    [pooled] = pool_rounds(
        [
            _round("1", [1, 1], soundness="sound"),
            _round("2", [1, 0], soundness="unreliable", soundness_failed="H7: 100% of gradients are zero"),
            _round("3", [1, 0], soundness="warn", soundness_failed="H8: 6% of losses are 0"),
        ]
    )
    assert pooled.provenance["soundness"] == "unreliable" and (pooled.n, pooled.n_correct) == (6, 4)
    assert pooled.provenance["soundness_failed"] == "H7: 100% of gradients are zero; H8: 6% of losses are 0"
    assert "soundness" not in pool_rounds([_round("1", [1, 1]), _round("2", [1, 0])])[0].provenance


def test_a_round_that_ran_again_with_more_examples_counts_once() -> None:
    short, long, other = _round("1", [1, 1]), _round("1", [1, 1, 0]), _round("2", [0, 0])
    for records in ([short, long, other], [long, other, short]):
        [pooled] = pool_rounds(records)
        assert (pooled.n, pooled.n_correct) == (5, 2) and "(rounds 1, 2)" in str(pooled.provenance["data"])


def test_a_failed_round_has_no_counts() -> None:
    failed = record(n_correct=None, flags=None, error="crash", provenance={**FACTS, "round": "1"})
    [pooled] = pool_rounds([failed, _round("2", [1, 0])])
    assert (pooled.n_correct, pooled.flags, pooled.error) == (None, None, "crash")
