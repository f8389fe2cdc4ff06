"""What a run may start from, and what its terms need."""

import pytest

from rlbench.core import Suite
from rlbench.core.errors import CheckpointError, FieldError
from rlbench.tasks.scenes import Scenes
from rlbench.training.prepare import check_start
from rlbench.training.recipe import load_recipe
from rlbench.training.rehearsal import rehearse
from rlbench.training.run import train

TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 16}
THERMAL = {"modalities": ["thermal"]}


def _make_suite(task) -> Suite:
    fields = {"name": "mine", "version": 1, "summary": "", "modality": "thermal", "task_name": "scenes", "task": task}
    return Suite(**{**fields, "perturbations": (), "examples": 1, "seed": 0, "path": ""})


@pytest.mark.parametrize(
    ("overrides", "backbone", "text"),
    [
        ({"init": "languagebind:mini-scenes"}, "mini", "train METHOD:mini-scenes"),
        ({"init": "languagebind:mini"}, "vit-l-14", "has the backbone mini, the recipe vit-l-14"),
        ({"original": "languagebind:mini-scenes"}, "mini", "`init` and `original` must have the recipe's"),
        ({"init": "random:mini"}, "mini", "give --set init=random"),
        ({"init": "fare+jpeg"}, "mini", "no towers that can be trained"),
        ({"init": "own_trainable:make"}, "mini", "own_trainable:make has no towers that can be trained"),
        ({"original": "own_trainable:make"}, "mini", "own_trainable:make has no towers that can be trained"),
    ],
)
def test_a_start_of_another_backbone_is_refused_before_training(
    tmp_path, monkeypatch, overrides, backbone, text
) -> None:
    """A module of one's own may have towers, and no family could load its run folder."""
    source = "from rlbench.encoders.models import load_encoder\n\n\ndef make():\n    return load_encoder('fare:mini')\n"
    (tmp_path / "own_trainable.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CheckpointError, match=text):
        train("fare", out=tmp_path / "a", overrides={**TINY, **overrides}, backbone=backbone, modalities=["image"])
    assert not (tmp_path / "a").exists()


def test_terms_across_sensors_need_another_sensor(tmp_path) -> None:
    """Alone, the sum over sensors would be the sensor itself, and its loss counted twice."""
    given = {**TINY, "init": "rlbind-stage1:mini-scenes"}
    with pytest.raises(FieldError, match="thermal is trained alone; add --together"):
        train("rlbind", backbone="mini-scenes", out=tmp_path / "a", overrides=given, **THERMAL)
    with pytest.raises(FieldError, match="thermal is trained alone; add --together"):
        rehearse("rlbind", backbone="mini-scenes", overrides=given, together=True, **THERMAL)
    with pytest.raises(FieldError, match="joint and negatives need paired examples"):
        task = Scenes(modality="thermal")
        check_start(
            load_recipe("tecoa", modality="thermal", overrides={"extras.joint": 1}), "thermal", _make_suite(task)
        )
