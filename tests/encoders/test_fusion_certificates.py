"""Takeover certificates: no unit vector in place of one sensor's embedding breaks a certified example."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import registry
from rlbench.encoders.takeover import Certified, find_reach

RULES = [name for name in registry.names("fusion") if isinstance(registry.make("fusion", name), Certified)]
SCALES = st.sampled_from([0.5, 2.0, 20.0, 100.0])


def _world(seed: int, *, sensors: int, classes: int, examples: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors (C, D), labels (N,) and embeddings (M, N, D) near the anchors of their labels."""
    generator = torch.Generator().manual_seed(seed)
    anchors = normalize(torch.randn(classes, 4, generator=generator, dtype=torch.float64), dim=1)
    y = torch.randint(classes, (examples,), generator=generator)
    noise = torch.randn(sensors, examples, 4, generator=generator, dtype=torch.float64)
    return anchors, y, normalize(anchors[y] + 0.4 * noise, dim=2)


def _is_right(name: str, logits: Tensor, y: Tensor) -> Tensor:
    """(N,) whether no other class reaches the label's score."""
    fused = registry.make("fusion", name).fuse(logits)
    label = fused.gather(1, y[:, None])
    return (fused.scatter(1, y[:, None], float("-inf")) < label).all(1)


def _take_over(name: str, f: Tensor, anchors: Tensor, scale: float, y: Tensor, liars: Tensor) -> Tensor:
    """(N,) whether the rule is right, whichever sensor says any of the liars (K, D)."""
    safe = torch.ones(len(y), dtype=torch.bool)
    for j in range(len(f)):
        for liar in liars:
            changed = f.clone()
            changed[j] = liar
            safe &= _is_right(name, scale * changed @ anchors.T, y)
    return safe


def _list_liars(anchors: Tensor, seed: int) -> Tensor:
    """Random unit vectors, the anchors, and the directions from each anchor to each other."""
    generator = torch.Generator().manual_seed(seed)
    toward = (anchors[:, None] - anchors).flatten(0, 1)
    drawn = torch.randn(20, anchors.shape[1], generator=generator, dtype=torch.float64)
    return normalize(torch.cat([drawn, anchors, toward[toward.norm(dim=1) > 1e-9]]), dim=1)


def _certify(name: str, f: Tensor, anchors: Tensor, scale: float, y: Tensor) -> Tensor:
    return registry.make("fusion", name).certify(scale * f @ anchors.T, y, find_reach(anchors, scale))


def test_four_rules_have_certificates() -> None:
    assert {"sum", "mean", "median", "majority"} <= set(RULES)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), sensors=st.integers(3, 5), classes=st.integers(2, 5), scale=SCALES)
def test_no_unit_vector_breaks_a_certified_example(seed: int, sensors: int, classes: int, scale: float) -> None:
    anchors, y, f = _world(seed, sensors=sensors, classes=classes)
    liars = _list_liars(anchors, seed)
    for name in RULES:
        certified = _certify(name, f, anchors, scale, y)
        assert not (certified & ~_take_over(name, f, anchors, scale, y, liars)).any(), name
        assert not (certified & ~_is_right(name, scale * f @ anchors.T, y)).any(), name


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), sensors=st.integers(2, 5), classes=st.integers(2, 5))
def test_the_certificate_of_sum_is_exact(seed: int, sensors: int, classes: int) -> None:
    """What is not certified is broken by the direction from the label's anchor to a rival's."""
    anchors, y, f = _world(seed, sensors=sensors, classes=classes)
    certified = _certify("sum", f, anchors, 20.0, y)
    assert torch.equal(certified, _take_over("sum", f, anchors, 20.0, y, _list_liars(anchors, seed)))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), sensors=st.integers(2, 5), scale=st.sampled_from([0.5, 2.0]))
def test_the_certificate_of_mean_is_exact_for_two_classes(seed: int, sensors: int, scale: float) -> None:
    anchors, y, f = _world(seed, sensors=sensors, classes=2)
    certified = _certify("mean", f, anchors, scale, y)
    broken = ~_take_over("mean", f, anchors, scale, y, _list_liars(anchors, seed))
    assert torch.equal(certified, ~broken)


def test_two_confident_sensors_are_never_certified_by_mean() -> None:
    anchors = torch.eye(3, dtype=torch.float64)
    f = anchors[:1].expand(2, 1, 3)
    assert not _certify("mean", f, anchors, 100.0, torch.tensor([0])).any()
    assert _certify("mean", f[:1].expand(3, 1, 3), anchors, 100.0, torch.tensor([0])).all()


def test_the_majority_of_three_is_certified_where_all_three_are_right() -> None:
    anchors, y, f = _world(3, sensors=3, classes=4, examples=400)
    right = ((f @ anchors.T).argmax(2) == y).all(0)
    certified = _certify("majority", f, anchors, 100.0, y)
    assert torch.equal(certified, right) and 0 < int(right.sum()) < 400


def test_a_tied_vote_is_certified_by_probability() -> None:
    """Five sensors, votes 3 to 1 to 1: a sensor of three that changes sides makes it 2 to 2, which p decides."""
    z = torch.tensor([[8.0, 0, 0], [8.0, 0, 0], [8.0, 0, 0], [0, 0.01, 0], [0, 0, 0.01]], dtype=torch.float64)[:, None]
    y, majority = torch.tensor([0]), registry.make("fusion", "majority")
    assert majority.certify(z, y, torch.full((3, 3), 100.0, dtype=torch.float64)).all()
    z[3:, 0] = torch.tensor([[0.0, 8.0, 0.0], [0.0, 0.0, 8.0]], dtype=torch.float64)
    assert not majority.certify(z, y, torch.full((3, 3), 100.0, dtype=torch.float64)).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), sensors=st.integers(3, 6))
def test_the_certificate_of_median_is_exact_for_free_logits(seed: int, sensors: int) -> None:
    anchors, y, f = _world(seed, sensors=sensors, classes=4)
    z = f @ anchors.T
    safe = torch.ones(len(y), dtype=torch.bool)
    for j in range(sensors):
        for t in range(4):
            changed = z.clone()
            changed[j] = -1e6
            changed[j, :, t] = 1e6
            changed[j, torch.arange(len(y)), y] = -1e6
            safe &= _is_right("median", changed, y) | (y == t)
    assert torch.equal(_certify("median", f, anchors, 1.0, y), safe)
