"""What a run says of its splits: repeated files, shared recordings, missing classes, no validation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlbench.core import Suite, registry
from rlbench.core.errors import RLBenchError
from rlbench.encoders.models import resolve
from rlbench.training.prepare import compute_checksums
from rlbench.training.recipe import load_recipe
from rlbench.training.run import train
from rlbench.training.splits import list_repeats, warn_of_splits

TINY = {"steps": 4, "validate": 2, "batch": 8, "attack_steps": 1}


def _write_folder(root: Path, splits: dict[str, str]) -> Suite:
    """A folder of grey pictures by split, of these levels: below 128 they are dark. Equal levels are equal files."""
    rows = []
    for split, colours in splits.items():
        for k, colour in enumerate(colours.split()):
            label = "dark" if int(colour) < 128 else "light"
            path = root / split / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), int(colour), np.uint8)).save(path)
            rows.append(f"{split}/{k}.png,{label},{split},{split}-{label}\n")
    (root / "labels.csv").write_text("path,label,split,source\n" + "".join(rows))
    (root / "classes.csv").write_text("label,name\ndark,dark picture\nlight,light picture\n")
    (root / "prompts.txt").write_text("{a}\n")
    return _make_suite(registry.make("task", "folder", {"data": str(root), "modality": "image"}))


def _make_suite(task) -> Suite:
    fields = {"name": "mine", "version": 1, "summary": "", "modality": "image", "task_name": "folder", "task": task}
    return Suite(**{**fields, "perturbations": (), "examples": 1, "seed": 0, "path": ""})


def test_test_files_in_the_train_split_are_named_in_a_warning_and_in_the_card(tmp_path, caplog, no_curves) -> None:
    suite = _write_folder(tmp_path / "data", {"train": "1 2 200", "val": "3 201", "test": "2 4 202"})
    out = train("tecoa", suite=suite, out=tmp_path / "a", overrides=TINY)
    assert "same files as 1 of 3 test examples of mine" in caplog.text
    assert resolve(str(out)).weights["image"].trained["sees"] == ["1 of 3 test examples of mine"]
    second = train("tecoa", suite=suite, out=tmp_path / "b", overrides={**TINY, "init": str(out)})
    assert resolve(str(second)).weights["image"].trained["sees"] == ["1 of 3 test examples of mine"]
    clean = _write_folder(tmp_path / "clean", {"train": "1 2 200", "val": "3 201", "test": "5 4 202"})
    assert list_repeats(clean.task, "clean") == ()


def test_shared_recordings_and_missing_classes_are_warned_of(tmp_path, caplog) -> None:
    suite = _write_folder(tmp_path, {"train": "1 2", "val": "3 201", "test": "5 4 202"})
    warn_of_splits(suite.task, ())
    assert "1 of 2 classes have no train example: light picture" in caplog.text and "source" not in caplog.text
    lines = (tmp_path / "labels.csv").read_text().replace("test-dark", "train-dark")
    (tmp_path / "labels.csv").write_text(lines)
    caplog.clear()
    warn_of_splits(registry.make("task", "folder", {"data": str(tmp_path), "modality": "image"}), ())
    assert "2 of 3 test examples have a source" in caplog.text


def test_without_a_validation_split_the_best_weights_are_the_last(tmp_path, caplog, no_curves) -> None:
    suite = _write_folder(tmp_path / "data", {"train": "1 2 200", "test": "5 4 202"})
    out = train("tecoa", suite=suite, out=tmp_path / "a", overrides=TINY)
    last, best = (resolve(str(path)).weights["image"] for path in (out, out / "best"))
    assert last.trained["step"] == best.trained["step"] == 4 and last.sha256 == best.sha256
    assert "the val split has 0 examples" in caplog.text


def test_prompts_of_a_suite_show_no_unseen_classes(tmp_path, no_curves) -> None:
    suite = _write_folder(tmp_path / "data", {"train": "1 2 200", "val": "3 201", "test": "5 4 202"})
    out = train("tecoa", suite=suite, out=tmp_path / "a", overrides={**TINY, "prompts": "all"})
    assert resolve(str(out)).weights["image"].trained["sees"] == []


def test_a_changed_train_file_of_pairs_is_a_change_of_the_data(tmp_path, no_curves) -> None:
    """Their fingerprint covers the test split alone."""
    _write_folder(tmp_path / "data", {"train": "1 2 200", "val": "3 201", "test": "5 4 202"})
    names = [line.split(",") for line in (tmp_path / "data/labels.csv").read_text().splitlines()[1:]]
    rows = [f"{path},{label},{split},{source},{path}" for path, label, split, source in names]
    (tmp_path / "data/labels.csv").write_text("\n".join(["id,label,split,source,image", *rows]) + "\n")

    def make() -> Suite:
        fields = {"data": str(tmp_path / "data"), "modality": "image"}
        return _make_suite(registry.make("task", "paired-folder", fields))

    recipe = load_recipe("tecoa", modality="image", overrides=TINY)
    before = compute_checksums(recipe, "image", make())
    train("tecoa", suite=make(), out=tmp_path / "a", overrides=TINY)
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(tmp_path / "data/train/0.png")
    after = compute_checksums(recipe, "image", make())
    assert [name for name in before if before[name] != after[name]] == ["the train split of image"]
    with pytest.raises(RLBenchError, match="the train split of image changed since it began"):
        train("tecoa", suite=make(), out=tmp_path / "a", overrides=TINY)
