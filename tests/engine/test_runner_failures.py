"""Runs that go wrong: failed cells, killed workers, edited plugins, and what can't run at all."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from tiny_suite import suite_file

from rlbench.core import Adversarial, Worst, registry
from rlbench.core.errors import DataError, FieldError, ModalityError, RLBenchError, StoreError, UnknownName
from rlbench.core.executor import Report
from rlbench.core.suite import load_suite
from rlbench.encoders.identity import Identity
from rlbench.encoders.models import resolve
from rlbench.engine import cells
from rlbench.engine.block.bench import prepare
from rlbench.engine.cells import keys as cell_keys
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan.types import Unit
from rlbench.engine.run.jobs import Shared, perform
from rlbench.engine.run.runner import execute, plan, run
from rlbench.report.boards.tables import frame, tables
from rlbench.store.keys import record_key
from rlbench.store.records import read_records


@registry.register("attack", "broken")
@dataclass(frozen=True, kw_only=True)
class Broken:
    """Crashes while `fault` is set."""

    def __call__(self, classifier, x, y, ball, streams):
        if Path(os.environ["RLBENCH_TEST_FAULT"]).exists():
            raise ArithmeticError("planned")
        classifier(x)
        return x


def test_a_failed_cell_is_recorded_and_never_robust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.PluginInfo("attack", "broken", __name__, "Broken", "")
    table = {**registry.entries(), ("attack", "broken"): entry}
    monkeypatch.setattr(registry, "entries", lambda: table)
    fault = tmp_path / "fault"
    fault.touch()
    monkeypatch.setenv("RLBENCH_TEST_FAULT", str(fault))
    path, out = suite_file(tmp_path, 300, "broken"), tmp_path / "out"
    records = {str(r.perturbation): r for r in run(path, "linear", out=out, workers=1)}
    assert records["broken linf 4/255"].n_correct is None and "planned" in str(records["broken linf 4/255"].error)
    assert records["worst linf 4/255"].n_correct is None
    assert str(records["worst linf 4/255"].error).startswith("broken linf 4/255: ")
    assert records["worst linf 2/255"].error is None and records["clean"].n_correct
    [board] = tables(frame(records.values()))
    assert len(board.failures) == 2 and all(one.count("broken linf 4/255") == 1 for one in board.failures)
    fault.unlink()  # mended: run again
    again = {str(r.perturbation): r for r in run(path, "linear", out=out, workers=1)}
    assert again["broken linf 4/255"].n_correct == again["clean"].n_correct
    assert len(read_records([out])) == len(again)


def test_an_edited_plugin_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.PluginInfo("attack", "broken", __name__, "Broken", "")
    table = {**registry.entries(), ("attack", "broken"): entry}
    monkeypatch.setattr(registry, "entries", lambda: table)
    suite = load_suite(suite_file(tmp_path, 40, "broken"))
    one = next(p for p in suite.perturbations if "broken" in str(p))
    before = cells.cell_key({}, suite, one)
    monkeypatch.setattr(cell_keys, "source_hash", lambda module: "edited" if module == __name__ else "")
    assert cells.cell_key({}, suite, one) != before


def test_a_key_changes_with_all_that_numbers_depend_on(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path))
    subject = prepare(suite, "linear").subject()
    attacked = [p for p in suite.perturbations if isinstance(p, Adversarial)]
    keys = [cells.cell_key(subject, suite, p) for p in suite.perturbations]
    keys += [cells.cell_key({**subject, name: "other"}, suite, attacked[0]) for name in subject]
    keys += [cells.cell_key(subject, replace(suite, seed=1), p) for p in attacked]
    keys.append(cells.cell_key(subject, suite, replace(attacked[1], ladder=())))
    keys.append(cells.cell_key(subject, suite, replace(attacked[1], fields=(("steps", 6),))))
    fewer = replace(suite, perturbations=tuple(p for p in suite.perturbations if p != attacked[2]))
    keys.append(cells.cell_key(subject, fewer, Worst(attacked[1].threat)))  # over other attacks
    assert len(set(keys)) == len(keys)
    renamed = replace(suite, name="other", version=2, summary="", path="elsewhere", examples=7)
    assert [cells.cell_key(subject, renamed, p) for p in suite.perturbations] == keys[: len(suite.perturbations)]
    assert record_key(keys[0], 5) != record_key(keys[0], 6)


def test_an_error_in_a_worker_is_the_callers(tmp_path: Path) -> None:
    path, out = suite_file(tmp_path, 300), tmp_path / "out"
    made = plan(path, "linear", store=out, workers=2)
    shutil.rmtree(out, ignore_errors=True)
    wrong = replace(made.pairs[0].suite, task=replace_task(made.pairs[0].suite.task))
    with pytest.raises(Exception, match=r"pickle|Nowhere"):
        execute(replace(made, pairs=(replace(made.pairs[0], suite=wrong),)))


def test_a_worker_with_other_data_or_weights_is_refused(tmp_path: Path) -> None:
    pair = plan(suite_file(tmp_path), "linear", store=tmp_path / "out").pairs[0]
    job = ((Unit(0, Group(), 0, 8, 8, 8, 1.0, 1.0),), None)
    about = (pair.suite, pair.model)
    for known, data, text in (
        (pair.identity, "other", "the data of tiny differ from those that the run was planned with"),
        (Identity("other"), pair.subject["data"], "its checkpoint differs"),
    ):
        with pytest.raises(RLBenchError, match=text):
            perform(Shared(((*about, known, data),), (64,), tmp_path), "cpu", job, None, Report(lambda *_: None))


def replace_task(task: object) -> object:
    class Nowhere:  # a local class can't be sent to another process
        fingerprint, modality = task.fingerprint, task.modality

    return Nowhere()


def test_mistakes_are_reported_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for error, text, wrong in (
        (ModalityError, "thermal", {"suites": "thermal"}),
        (UnknownName, "did you mean", {"suites": "smok"}),
        (UnknownName, "did you mean", {"models": "linea"}),
        (FieldError, "examples is 0", {"examples": 0}),
        (FieldError, "batch_size is 0", {"batch_size": 0}),
        (FieldError, "workers is -1", {"workers": -1}),
        (FieldError, "device", {"device": "tpu9"}),
        (StoreError, "--out", {"store": __file__}),
    ):
        with pytest.raises(error, match=text):
            plan(**{"suites": "smoke", "models": "linear", "store": out, **wrong})
    assert not out.exists()


def _copy(baseline: str, folder: Path, *modalities: str) -> None:
    """Copies a bundle of the backbone mini as a run folder with these modalities."""
    shutil.copytree(resolve(baseline).folder, folder, dirs_exist_ok=True)
    card = yaml.safe_load((folder / "card.yaml").read_text())
    mini = card["backbones"]["mini"]
    mini["modalities"] = {modality: mini["modalities"][modality] for modality in modalities}
    (folder / "card.yaml").write_text(yaml.safe_dump({**card, "backbones": {"mini": mini}}))


def test_a_retrained_checkpoint_is_loaded_again(tmp_path: Path) -> None:
    suite, found = load_suite("thermal"), []
    for baseline in ("tecoa", "fare"):
        _copy(baseline, tmp_path / "model", "thermal")
        found.append(prepare(suite, str(tmp_path / "model")).subject()["checkpoint"])
    assert found == [resolve(baseline).sha256["thermal"] for baseline in ("tecoa", "fare")]
    assert found[0] != found[1]


def test_an_empty_split_is_an_error_and_a_suite_named_twice_runs_once(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path))

    class Empty(type(suite.task)):
        def size(self, split: str) -> int:
            return 0

    with pytest.raises(DataError, match="empty"):
        plan(replace(suite, task=Empty()), "linear", store=tmp_path / "out")
    twice = plan([suite.path, suite.path], ["linear", "linear:oracle"], store=tmp_path / "out")
    assert len(twice.cells) == len(suite.perturbations)


def test_of_several_models_one_that_cannot_run_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "thermal-only"
    _copy("fare", folder, "thermal")
    made = plan("smoke", ["linear", str(folder)], store=tmp_path / "out", examples=8)
    skipped = [cell for cell in made.cells if cell.skipped]
    assert {cell.model for cell in skipped} == {str(folder)} and "image" in str(skipped[0].skipped)
    assert {cell.model for cell in made.cells if not cell.skipped} == {"linear:oracle"}
    with pytest.raises(ModalityError):
        plan("smoke", str(folder), store=tmp_path / "out")
