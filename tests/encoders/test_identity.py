"""Two encoders have one cell key if and only if their weights, code, fields and defence are equal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from encoder_sources import CALLABLES, OWN, PARTS, WEIGHT_PLACES
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rlbench.core.errors import RLBenchError
from rlbench.core.sources import source_hash
from rlbench.encoders.identity import Identity, identify
from rlbench.encoders.loading import load
from rlbench.encoders.models import load_encoder, resolve

VARIANTS = {"first": 0, "helper": 1, "method": 2, "same": 0}  # which code a package has


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for package, code in VARIANTS.items():
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")
        (folder / package / "own.py").write_text(OWN.replace("SHIFT = 0", f"SHIFT = {int(code == 2)}") + CALLABLES)
        (folder / package / "parts.py").write_text(PARTS.replace("GAIN = 1", f"GAIN = {1 + (code == 1)}"))
    return folder


@pytest.fixture(autouse=True)
def here(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packages)


def _identity(name: str) -> Identity:
    return identify(load_encoder(name, "image"), resolve(name), "image")


encoders = st.tuples(
    st.sampled_from(sorted(VARIANTS)),
    st.sampled_from(sorted(WEIGHT_PLACES)),
    st.integers(0, 1),  # the seed of the weights
    st.integers(0, 1),  # a field
    st.sampled_from(["", "+jpeg", "+blur", "+jpeg+blur"]),
)


@settings(max_examples=60, deadline=None, phases=[Phase.generate])
@given(one=encoders, other=encoders, alike=st.lists(st.booleans(), min_size=5, max_size=5))
def test_keys_are_equal_if_and_only_if_everything_that_matters_is(one, other, alike, packages) -> None:
    other = tuple(a if same else b for a, b, same in zip(one, other, alike, strict=True))
    names = [f"{package}.own:{place}_{seed}_{k}{defence}" for package, place, seed, k, defence in (one, other)]
    equal = (VARIANTS[one[0]], *one[1:]) == (VARIANTS[other[0]], *other[1:])
    assert (_identity(names[0]) == _identity(names[1])) == equal, names


def test_weights_that_change_under_one_name_are_another_encoder() -> None:
    weights = Path("weights.pt")
    torch.save({"w": torch.ones(4, 64)}, weights)
    before = load("first.own:from_file", "image")
    assert load("first.own:from_file", "image", known=before.identity) is before
    torch.save({"w": torch.zeros(4, 64)}, weights)
    again = load("first.own:from_file", "image")
    assert again.identity != before.identity and not torch.equal(again.encoder.net.w, before.encoder.net.w)
    with pytest.raises(RLBenchError, match=r"different each time .*: its checkpoint and weights differ, such as"):
        load("first.own:from_file", "image", known=before.identity)


def test_an_edited_neighbouring_module_is_noticed_when_it_is_reloaded(packages: Path) -> None:
    (packages / "alone.py").write_text(f"import lonely\n{OWN.replace('from .parts', 'from lonely')}{CALLABLES}")
    (packages / "lonely.py").write_text(PARTS)
    before = _identity("alone:attribute_0_0")
    (packages / "lonely.py").write_text(PARTS + "\nUNUSED = 1\n")
    assert _identity("alone:attribute_0_0") == before  # what runs is what was read before
    for name in ("alone", "lonely"):
        del sys.modules[name]
    assert _identity("alone:attribute_0_0").facts["code"] != before.facts["code"]


def test_a_stated_checksum_does_not_hide_other_weights() -> None:
    one, other = (_identity(f"first.own:stated_{seed}") for seed in (0, 1))
    assert one.checkpoint != other.checkpoint and one.facts["stated checksum"] == other.facts["stated checksum"] != ""


def test_what_identity_states_is_added_and_must_be_plain() -> None:
    one, other, same = (_identity(f"first.own:states_{what}") for what in ("a", "b", "mapping"))
    assert len({tuple(sorted(i.facts.items())) for i in (one, other, same)}) == 3
    with pytest.raises(RLBenchError, match=r"identity\(\) returned int; it must return a text or a mapping"):
        _identity("first.own:states_number")
    with pytest.raises(RLBenchError, match=r"identity\(\) holds a value that is not a text, number, list or mapping"):
        _identity("first.own:states_tensor")


def test_traits_the_box_and_the_scale_are_declared() -> None:
    found = {_identity(f"first.own:declares_{what}").facts["fields"] for what in ("nothing", "trait", "rate", "scale")}
    assert len(found) == 4


@pytest.mark.parametrize("name", ["rlbind", "fare", "linear", "rlbind+jpeg"])
def test_a_bundled_encoder_is_what_its_checksum_says(name: str) -> None:
    modality = "image"
    encoder = load_encoder(name, modality)
    assert identify(encoder, resolve(name), modality) == Identity(encoder.sha256[modality])


def test_random_weights_have_a_hash_of_their_own() -> None:
    one, other = (identify(load_encoder(n, "image"), resolve(n), "image") for n in ("random:mini", "rlbind"))
    assert len(one.checkpoint) == 64 and one != other and one.facts["weights"]


def test_an_encoder_with_unseeded_weights_differs_from_itself() -> None:
    before = load("first.own:unseeded", "image").identity
    load("first.own:unseeded", "image")
    with pytest.raises(RLBenchError, match=r"such as encoder\.net\.w; seed its random numbers"):
        load("first.own:unseeded", "image", known=before)


def test_sources_are_of_the_user_s_modules_alone() -> None:
    for package in ("first", "same", "helper"):
        load_encoder(f"{package}.own:list_0_0", "image")
    assert source_hash("rlbench.attacks.pgd") == ""
    assert source_hash("first.own") == source_hash("same.own") != source_hash("helper.own")
    assert source_hash("first.own") != source_hash("method.own")
