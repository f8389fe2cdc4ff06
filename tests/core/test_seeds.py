"""Random streams: an example's numbers depend only on the seed, the scope and its id."""

import random

import numpy as np
import pytest
import torch

from rlbench.core import seeds
from rlbench.core.seeds import ExampleStreams, generator

STREAMS = ExampleStreams(3, ("a", "b", "c"), "pgd linf 4/255")


def test_numbers_do_not_depend_on_batch_or_order() -> None:
    whole = STREAMS.uniform((2, 4))
    assert torch.equal(STREAMS.take([2, 0]).uniform((2, 4)), whole[[2, 0]])
    assert torch.equal(ExampleStreams(3, ("b",), "pgd linf 4/255").uniform((2, 4))[0], whole[1])
    assert torch.equal(STREAMS.uniform((2, 4)), whole)


def test_seed_scope_and_id_each_change_the_numbers() -> None:
    base = STREAMS.normal((8,))
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(ExampleStreams(4, STREAMS.ids, STREAMS.scope).normal((8,)), base)
    assert not torch.equal(STREAMS.child("restart 1").normal((8,)), base)


def test_uniform_and_normal_have_their_moments() -> None:
    streams = ExampleStreams(0, tuple(map(str, range(200))))
    uniform, normal = streams.uniform((500,)), streams.normal((500,))
    assert uniform.min() >= -1 and uniform.max() < 1
    assert abs(uniform.mean()) < 0.01 and abs(uniform.var() - 1 / 3) < 0.01
    assert abs(normal.mean()) < 0.015 and abs(normal.var() - 1) < 0.02


def test_an_empty_batch_has_an_empty_stream() -> None:
    assert STREAMS.take([]).uniform((2, 2)).shape == (0, 2, 2)


def test_parts_of_a_key_are_separated() -> None:
    assert generator("ab", "c").random() != generator("a", "bc").random()


def test_third_party_code_is_seeded_and_the_global_generators_are_restored() -> None:
    def draws() -> list[float]:
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with seeds.seed_globals(3, torch.device("cpu")):
        first = draws()
    with pytest.raises(ValueError, match="stop"), seeds.seed_globals(3, torch.device("cpu")):
        assert draws() == first
        raise ValueError("stop")
    with seeds.seed_globals(4, torch.device("cpu")):
        assert draws() != first
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
