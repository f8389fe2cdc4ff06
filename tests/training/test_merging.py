"""Merging of weights: rules by hand, provenance, and what can't be merged."""

import shutil

import pytest
import torch
import yaml
from click.testing import CliRunner

from rlbench.cli.main import main
from rlbench.core.errors import CheckpointError, ModalityError, RLBenchError
from rlbench.encoders.models import load_encoder, resolve
from rlbench.training import merging, stability
from rlbench.training.lineage import find_backbone, sum_passes
from rlbench.training.loop import Step
from rlbench.training.merging import apply_masks, average, merge_weights
from rlbench.training.prepare import prepare
from rlbench.training.recipe import load_recipe
from rlbench.training.run import train
from rlbench.training.stability import Sensitivity, climb, measure_sensitivity, normalise


def _state(name: str) -> dict[str, torch.Tensor]:
    return dict(load_encoder(name, "thermal").tower("thermal").state_dict())


def test_the_mean_is_a_model_that_says_what_it_is_from(tmp_path) -> None:
    names = ["rlbind", "fare-tecoa:mini", "languagebind"]
    result = CliRunner().invoke(main, ["merge-weights", *names, "--out", str(tmp_path / "a"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert f"merged 3 models into {tmp_path / 'a'}; next: rlbench run --suite " in result.output
    found, states = _state(str(tmp_path / "a")), [_state(name) for name in names]
    for name, value in found.items():
        mean = sum(state[name] for state in states) / 3
        assert torch.allclose(value, mean, atol=1e-3, rtol=1e-3) and not torch.allclose(mean, states[0][name])
    model = resolve(str(tmp_path / "a"))
    assert set(model.modalities) == {"image", "thermal", "audio", "video"} and model.baseline == "merged-mean"
    trained = model.weights["thermal"].trained
    assert [one["model"] for one in trained["merged"]] == names and trained["init"] == "languagebind:mini"
    assert trained["merged"][0]["sha256"] == resolve("rlbind").sha256["thermal"]
    assert trained["passes"] == {"forwards": 0, "backwards": 0} and "names of unseen classes" in trained["sees"]
    assert recipe_starts(model.name)


def recipe_starts(name: str) -> bool:
    """Whether a training can start from a model."""
    given = {"init": name, "original": name, "examples": 64, "batch": 64}
    return prepare(load_recipe("fare", modality="thermal", overrides=given), "thermal").steps > 0


def test_trainings_that_models_share_count_once() -> None:
    """rlbind and fare-tecoa start from one stage 1."""
    cards = {name: resolve(name).weights["thermal"].trained for name in ("rlbind", "fare-tecoa", "rlbind-stage1")}
    for key, total in sum_passes(["rlbind", "fare-tecoa", "rlbind"], "thermal").items():
        assert total == sum(card["passes"][key] for card in cards.values()) > 0
    assert find_backbone("rlbind", "thermal").name == "languagebind:mini"
    assert find_backbone("languagebind", "thermal").name == "languagebind"
    assert sum_passes(["languagebind"], "thermal") == {"forwards": 0, "backwards": 0}


def test_the_average_keeps_whole_numbers() -> None:
    pairs = (([1.0, 2.0], [7]), ([2.0, 5.0], [9]))
    states = [{"w": torch.tensor(w), "n": torch.tensor(n)} for w, n in pairs]
    merged = average(states)
    assert torch.equal(merged["w"], torch.tensor([1.5, 3.5])) and torch.equal(merged["n"], torch.tensor([7]))


def test_the_masks_by_hand(monkeypatch) -> None:
    """Weights that the other objective is most sensitive to keep the backbone's value."""
    monkeypatch.setattr(merging, "KAPPA", 2.0)
    base = {"w": torch.tensor([1.0, 1.0, 1.0]), "n": torch.tensor([3])}
    states = [{"w": torch.tensor([2.0, 2.0, 2.0]), "n": torch.tensor([3])}, {"w": torch.tensor([0.0, 0.0, 0.0])}]
    natural, robust = (Sensitivity({"w": torch.tensor(g)}, 0, 0) for g in ([0.0, 1.0, 0.5], [0.5, 0.0, 1.0]))
    merged = apply_masks(base, states, [natural, robust])
    assert torch.allclose(merged["w"], torch.tensor([1 + 0.2 * 0.25 - 0.8, 1 + 0.2, 1 - 0.8 * 0.25]))
    assert torch.equal(merged["n"], base["n"])
    assert torch.allclose(normalise(torch.tensor([0.0, -4.0, 1.0])), torch.tensor([0.0, 1.0, 0.5]))
    assert torch.equal(normalise(torch.zeros(3)), torch.zeros(3))
    weights = {"a": torch.nn.Parameter(torch.zeros(1)), "b": torch.nn.Parameter(torch.zeros(1))}
    climb(weights, {"a": torch.tensor([3.0]), "b": torch.tensor([-4.0])}, 10.0)
    assert weights["a"].item() == pytest.approx(6) and weights["b"].item() == pytest.approx(-8)


@pytest.mark.slow
def test_pistole_on_bundled_models(tmp_path, monkeypatch) -> None:
    """Passes: two steps of 64 examples; PGD-10 and one pass for the robust model, one useless step for the other."""
    monkeypatch.setattr(stability, "EXAMPLES", 64)
    monkeypatch.setattr(stability, "ASCENT", 2)
    monkeypatch.setattr(merging, "list_common", lambda models: ("thermal",))
    out, names = tmp_path / "a", ["languagebind", "tecoa"]
    assert merge_weights(names, out, rule="pistole", device="cpu") == ("thermal",)
    trained = resolve(str(out)).weights["thermal"].trained
    own, since = {key: 2 * 64 * (11 + 2) for key in ("forwards", "backwards")}, sum_passes(["tecoa"], "thermal")
    assert trained["passes"] == own and trained["since"] == {key: own[key] + since[key] for key in own}
    base, robust, found = _state("languagebind"), _state("tecoa"), _state(str(out))
    moved = sum(float((found[name] - base[name]).norm() ** 2) for name in base) ** 0.5
    whole = sum(float((robust[name] - base[name]).norm() ** 2) for name in base) ** 0.5
    assert 0.1 * whole < moved < 0.8 * whole
    one = measure_sensitivity("tecoa", "thermal", None, "cpu", adversarial=True)
    assert all(value.min() >= 0 and value.max() == 1 for value in one.weights.values())


def test_what_cant_be_merged(tmp_path) -> None:
    def refuse(names: list[str], text: str, error: type[RLBenchError], **options: str) -> None:
        with pytest.raises(error, match=text):
            merge_weights(names, tmp_path / "a", **options)
        assert not (tmp_path / "a").exists()

    refuse(["rlbind"], "one model was given; name two or more", RLBenchError)
    refuse(["rlbind", "fare", "rlbind"], "rlbind is given twice", RLBenchError)
    refuse(["rlbind", "fare", "tecoa"], "pistole merges a natural and a robust model", RLBenchError, rule="pistole")
    text = "rlbind:mini is mini mini, rlbind:mini-scenes is mini mini-scenes; only"
    refuse(["rlbind", "rlbind:mini-scenes"], text, CheckpointError)
    card = yaml.safe_load((resolve("fare").folder / "card.yaml").read_text())
    thermal = card["backbones"]["mini"]["modalities"]["thermal"]
    for name, kept in (("other", {"thermal": {**thermal, "trained": {}}}), ("sight", {"image": thermal})):
        (tmp_path / name).mkdir()
        shutil.copy(resolve("fare").folder / thermal["file"], tmp_path / name)
        own = {**card, "backbones": {"mini": {**card["backbones"]["mini"], "modalities": kept}}}
        (tmp_path / name / "card.yaml").write_text(yaml.safe_dump(own))
    text = f"thermal: rlbind comes from the backbone languagebind:mini, {tmp_path / 'other'} from "
    refuse(["rlbind", str(tmp_path / "other")], text, CheckpointError)
    text = "no modality in common: .* has thermal; .* has image"
    refuse([str(tmp_path / "other"), str(tmp_path / "sight")], text, ModalityError)
    with pytest.raises(RLBenchError, match="exists; name a new folder"):
        merge_weights(["rlbind", "fare"], tmp_path / "other")


def test_a_start_that_was_replaced_or_moved_is_no_lineage(tmp_path, no_curves) -> None:
    """A card names its start by a path, where another model may lie by now; the run itself needs it no more."""
    given = {"examples": 16, "steps": 1, "batch": 16, "validation": 8, "init": str(tmp_path / "first")}
    shutil.copytree(resolve("fare").folder, tmp_path / "source")
    card = yaml.safe_load((tmp_path / "source/card.yaml").read_text())
    card["backbones"].pop("mini-scenes")
    (tmp_path / "source/card.yaml").write_text(yaml.safe_dump(card))
    shutil.copytree(tmp_path / "source", tmp_path / "first")

    def replace_start(step: Step) -> None:
        if step.what == "step":
            shutil.rmtree(tmp_path / "first")

    out = str(train("tecoa", modalities=["thermal"], out=tmp_path / "a", overrides=given, report=replace_start))
    assert resolve(out).weights["thermal"].trained["since"]["forwards"] > 32  # fare's, too
    with pytest.raises(CheckpointError, match=r"a comes from .*first by its card, which is missing"):
        find_backbone(out, "thermal")
    shutil.copytree(tmp_path / "source", tmp_path / "first")
    assert find_backbone(out, "thermal").name == "languagebind:mini"
    card["backbones"]["mini"]["modalities"]["thermal"]["sha256"] = "0" * 64
    (tmp_path / "first/card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CheckpointError, match=r"a comes from .*first by its card, which has other weights now"):
        merge_weights([out, "fare"], tmp_path / "merged", device="cpu")


def test_shapes_must_agree() -> None:
    one, other = {"w": torch.zeros(2, 3)}, {"w": torch.zeros(2, 4)}
    with pytest.raises(CheckpointError, match=r"thermal: w is \(2, 3\) in a, \(2, 4\) in b"):
        merging.check_shapes(["a", "b"], [one, other], "thermal")
    with pytest.raises(CheckpointError, match=r"v is missing in a, \(1,\) in b"):
        merging.check_shapes(["a", "b"], [one, {**one, "v": torch.zeros(1)}], "thermal")
