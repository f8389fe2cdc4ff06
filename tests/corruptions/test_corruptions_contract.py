"""The contract of every installed corruption, over random inputs, sizes and dtypes; distortion on the worlds."""

import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suites
from rlbench.corruptions import corrupt
from rlbench.encoders.mini import BOXES

EXAMPLES = int(os.environ.get("RLBENCH_EXAMPLES", "12"))  # 500 for the numbers in docs/corruptions.md
ALL = {name: registry.make("corruption", name) for name in registry.names("corruption")}
SUITES = {modality: f"{modality}-c" for modality in ("image", "thermal", "audio", "video")}
SIDE = st.integers(32, 40)


@st.composite
def shapes(draw, corruption):
    """A batch's shape that the corruption takes: mostly odd ones, one channel or three."""
    n, acts_on = draw(st.integers(1, 3)), getattr(corruption, "acts_on", "")
    if acts_on == "waveform":
        return n, 1, draw(st.integers(1000, 3000))
    if acts_on == "log-mel":
        return n, 1, draw(st.integers(8, 70)), draw(st.integers(8, 70))
    size = draw(SIDE), draw(SIDE)
    if corruption.modalities == {"video"}:
        return n, draw(st.sampled_from((1, 3))), draw(st.integers(1, 9)), *size
    return n, draw(st.sampled_from((1, 3))), *size


def streams(n: int, seed: int = 0) -> ExampleStreams:
    return ExampleStreams(seed, tuple(f"example {i}" for i in range(n)), "contract")


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=max(4, EXAMPLES // 10), deadline=None, derandomize=True)
@given(data=st.data())
def test_contract(name, data) -> None:
    corruption, severity = ALL[name], data.draw(st.integers(1, 5))
    shape, dtype = data.draw(shapes(corruption)), data.draw(st.sampled_from((torch.float32, torch.float64)))
    seed = data.draw(st.integers(0, 99))
    x = torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype)
    x = x if data.draw(st.booleans()) else x.round()  # also at the edges of the box
    before, state, torch_state = x.clone(), np.random.get_state()[1].copy(), torch.get_rng_state()
    whole = corruption(x, severity, streams(len(x), seed))
    assert torch.equal(x, before), "the input was changed"
    assert (np.random.get_state()[1] == state).all() and torch.equal(torch.get_rng_state(), torch_state)
    assert whole.shape == x.shape and whole.dtype == dtype
    assert torch.isfinite(whole).all() and whole.min() >= 0 and whole.max() <= 1
    rows = list(reversed(range(len(x))))
    alone = [corruption(x[i : i + 1], severity, streams(len(x), seed).take([i])) for i in rows]
    assert torch.equal(torch.cat(alone[::-1]), whole), "the batch matters, or it does not repeat itself"


@pytest.mark.parametrize("name", ALL)
def test_a_severity_is_one_to_five_and_an_empty_batch_stays_empty(name) -> None:
    acts_on = getattr(ALL[name], "acts_on", "")
    shape = {"waveform": (1, 2000), "log-mel": (1, 32, 32)}.get(acts_on, (3, 32, 32))
    shape = (3, 4, 32, 32) if ALL[name].modalities == {"video"} else shape
    assert ALL[name](torch.zeros(0, *shape), 1, streams(0)).shape == (0, *shape)
    for severity in (0, 6):
        with pytest.raises(FieldError, match=f"severity is {severity}; it must be 1 to 5"):
            ALL[name](torch.zeros(1, *shape), severity, streams(1))
    with pytest.raises(DataError, match="needs"):
        ALL[name](torch.zeros(1, 7), 1, streams(1))


@pytest.mark.parametrize("modality", SUITES)
def test_a_suite_holds_all_corruptions_of_its_modality_at_all_severities(modality) -> None:
    [suite] = load_suites(SUITES[modality])
    listed = {str(one) for one in suite.perturbations} - {"clean"}
    able = {name for name, corruption in ALL.items() if modality in corruption.modalities} - {"reverse", "dim"}
    assert listed == {f"{name} {severity}" for name in able for severity in range(1, 6)}


_BOTH = {"image", "video"}
CASES = [(modality, name) for modality in SUITES for name in ALL if modality in ALL[name].modalities]
CASES = [case for case in CASES if EXAMPLES >= 100 or ALL[case[1]].modalities != _BOTH]


@pytest.mark.parametrize(("modality", "name"), CASES)
def test_mean_distortion_grows_with_severity_on_the_world(modality, name) -> None:
    """With the same draws at all severities; the order of the five published exceptions is not asked for."""
    [suite] = load_suites(SUITES[modality])
    box: Box = BOXES[modality]
    clean = suite.task.load(box, 0, EXAMPLES)
    corruption, drawn = ALL[name], ExampleStreams(0, clean.ids, name)
    if getattr(corruption, "acts_on", "") == "waveform":
        waves = suite.task.waves(box, 0, EXAMPLES)
        rated = type(corruption)(rate=suite.task.rate_of(box))
        found = [suite.task.hear(rated(waves, s, drawn), box) for s in range(1, 6)]
    else:
        found = [corruption(clean.x, s, drawn) for s in range(1, 6)]
    far = [(x - clean.x).abs().mean().item() for x in found]
    assert far[0] > 0 and far[-1] > far[0]  # those that are not ordered, too
    if getattr(corruption, "ordered", True):
        assert all(a < b for a, b in pairwise(far)), far


def test_the_call_for_anyone() -> None:
    x = torch.rand(2, 1, 4000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = corrupt(x, "white_noise", 5, low=-1.0, rate=8000, ids=("a", "b"))
    assert out.shape == x.shape and out.min() >= -1 and out.max() <= 1 and not torch.equal(out, x)
    assert torch.equal(corrupt(x[1:], "white_noise", 5, low=-1.0, rate=8000, ids=("b",)), out[1:])
    assert not torch.equal(corrupt(x, "white_noise", 5, low=-1.0, rate=8000, ids=("a", "b"), seed=1), out)
    with pytest.raises(DataError, match="leaves"):
        corrupt(x, "white_noise", 5)
    with pytest.raises(DataError, match="one for each"):
        corrupt(x, "white_noise", 5, low=-1.0, ids=("a",))
    with pytest.raises(UnknownName, match="did you mean 'white_noise'"):
        corrupt(x, "white_nose", 5, low=-1.0)
    with pytest.raises(FieldError, match="rate is 10"):
        corrupt(x, "white_noise", 5, low=-1.0, rate=10)
