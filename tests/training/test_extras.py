"""Terms that a recipe adds to any objective."""

from __future__ import annotations

import pytest
import torch

from rlbench.core import registry
from rlbench.core.errors import FieldError, UnknownName
from rlbench.encoders.models import resolve
from rlbench.training.recipe import load_recipe
from rlbench.training.run import train
from rlbench.training.types import Batch

PAIRED = {"modalities": ["image", "thermal"], "backbone": "mini-scenes", "together": True}
TINY = {"examples": 16, "epochs": 2, "batch": 8, "attack_steps": 1, "validation": 8, "validate": 100}


def _recipe(**overrides: object):
    return load_recipe("tecoa", modality="image", backbone="mini-scenes", overrides=overrides)


def test_the_losses_are_added_with_their_weights_and_the_adversary_stays() -> None:
    draws = torch.Generator().manual_seed(0)
    f, f_adv, anchors = (torch.randn(4, 5, generator=draws) for _ in range(3))
    batch = Batch(y=torch.tensor([0, 1, 2, 3]), anchors=anchors, captions=anchors, f0=f, means_adv=anchors.flip(0))
    tecoa, fare, teacher = (registry.make("objective", name) for name in ("tecoa", "fare", "teacher"))
    extended = _recipe(**{"extras.fare": 0.5, "extras.teacher": 2, "extras.negatives": 0, "original": "fare:mini"})
    objective = extended.objective_plugin
    assert objective.needs == {"f_adv", "f0", "means_adv"}
    expected = tecoa.loss(f, f_adv, batch) + fare.loss(f, f_adv, batch) / 2 + 2 * teacher.loss(f, f_adv, batch)
    assert torch.allclose(objective.loss(f, f_adv, batch), expected)
    assert torch.equal(objective.adversary_loss(f_adv, f, batch), tecoa.adversary_loss(f_adv, f, batch))
    assert _recipe(**{"extras.teacher": 1}).passes() == _recipe().passes()


@pytest.mark.parametrize(
    ("method", "extras", "error", "text"),
    [
        ("tecoa", {"teachr": 1}, UnknownName, "did you mean 'teacher'"),
        ("tecoa", {"teacher": -1}, FieldError, "extras.teacher is -1; it is a weight"),
        ("tecoa", {"teacher": "much"}, FieldError, "extras.teacher is 'much'"),
        ("tecoa", {"fare": 1}, FieldError, "needs `original`"),
        ("languagebind", {"teacher": 1}, FieldError, "the objective has no adversary"),
        ("tecoa", {"gram-volume": 1}, FieldError, "gram-volume compares .*; set `awp`"),
    ],
)
def test_wrong_extras_are_refused(method: str, extras: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        load_recipe(method, modality="image", overrides={"extras": extras, "original": None})


def test_negatives_need_paired_examples(tmp_path) -> None:
    with pytest.raises(FieldError, match="joint and negatives need paired examples"):
        train("tecoa", modalities=["thermal"], out=tmp_path, overrides={**TINY, "extras.negatives": 1})


@pytest.mark.slow
def test_extras_reach_the_weights_and_a_cut_run_resumes(tmp_path, no_curves) -> None:
    """A run that is stopped after a saved state ends with the weights of an undisturbed one."""
    extras = {f"extras.{name}": 1.0 for name in ("prototypes", "teacher", "joint", "negatives")}
    given = {**TINY, "validate": 1}

    def stop(step) -> None:
        if (step.what, step.modality, step.step) == ("step", "image", 3):
            raise KeyboardInterrupt

    plain = train("tecoa", out=tmp_path / "plain", overrides=given, **PAIRED)
    whole = train("tecoa", out=tmp_path / "whole", overrides={**given, **extras}, **PAIRED)
    with pytest.raises(KeyboardInterrupt):
        train("tecoa", out=tmp_path / "cut", overrides={**given, **extras}, report=stop, **PAIRED)
    cut = train("tecoa", out=tmp_path / "cut", overrides={**given, **extras}, **PAIRED)
    sums = [resolve(str(path)).sha256 for path in (plain, whole, cut)]
    assert sums[1] == sums[2] and sums[0] != sums[1]
