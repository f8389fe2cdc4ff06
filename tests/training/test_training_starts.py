"""What a run may start from, and what its terms need."""

import pytest

from rlbench.core import Suite
from rlbench.core.errors import CheckpointError, FieldError, RLBenchError
from rlbench.tasks.scenes import Scenes
from rlbench.training.loop import Trainer
from rlbench.training.prepare import check_start
from rlbench.training.recipe import load_recipe
from rlbench.training.rehearsal import rehearse
from rlbench.training.run import train
from rlbench.training.selection import load_recipes

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


def test_weights_that_are_not_finite_are_no_result(tmp_path, monkeypatch, no_curves) -> None:
    """The last step's damage shows in no loss, and values beyond half precision in no weight of the run."""
    for optimiser in ("adamw", "sgd"):
        with pytest.raises(
            RLBenchError, match=r"of the weights at step 1 of 1 is not finite with lr=1e\+40; try a small"
        ):
            given = {**TINY, "steps": 1, "lr": 1e40, "optimiser": optimiser}
            train("tecoa", out=tmp_path / optimiser, overrides=given, **THERMAL)
    given = {**TINY, "steps": 1, "lr": 1e6}
    with pytest.raises(CheckpointError, match="beyond half precision, in which it is stored; try a smaller lr"):
        train("tecoa", out=tmp_path / "a", overrides=given, **THERMAL)

    def spoil(trainer: Trainer, k: int) -> float:
        next(trainer.tower.parameters()).data.fill_(float("nan"))
        return 0.0

    monkeypatch.setattr(Trainer, "step", spoil)
    with pytest.raises(RLBenchError, match="is not finite after step 1 of 1; try a smaller lr"):
        train("tecoa", out=tmp_path / "b", overrides=given, **THERMAL)
    assert not list(tmp_path.glob("*/card.yaml"))


def test_fields_that_a_suite_overrules_and_unknown_backbones_are_refused(tmp_path) -> None:
    for name in ("world", "domain", "subset"):
        with pytest.raises(FieldError, match=f"{name} is for procedural worlds, and mine has its own data"):
            load_recipes("tecoa", None, None, "mini", _make_suite(Scenes(modality="thermal")), {name: "web"})
    with pytest.raises(FieldError, match="tecoa has no recipe for vit-b-32; its backbones are mini, mini-scenes"):
        load_recipe("tecoa", modality="thermal", backbone="vit-b-32")
