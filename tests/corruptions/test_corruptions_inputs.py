"""Corrupted inputs: sounds before the front end, kept for the next model; in suites with attacks, and in sheets."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from rlbench.core import Box, Composed, Corrupted, registry
from rlbench.core.errors import AttackError, KnowledgeError, SuiteError, UnknownName
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite, load_suites
from rlbench.encoders.mini import BOXES
from rlbench.engine.block import input_files
from rlbench.engine.block import inputs as module
from rlbench.engine.block.inputs import Inputs
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.report.figures.draw import draw_matrix
from rlbench.report.figures.sheets import has_only_corruptions, matrix

WAVE = Box(shape=(1, 8000), low=-1.0, unit="waveform")
HISS = Corrupted("white_noise", 4)


def inputs(name: str = "thermal-world", box: Box | None = None, folder: Path | None = None, seed: int = 0) -> Inputs:
    task = registry.make("task", name)
    return Inputs(task, task.fingerprint(), box or BOXES[task.modality], seed, folder)


@pytest.mark.parametrize("box", [BOXES["audio"], Box(shape=(1, 40, 33), unit="log-mel"), WAVE])
def test_the_front_end_makes_of_the_waveforms_what_the_task_loads(box) -> None:
    world = registry.make("task", "audio-world")
    assert torch.equal(world.hear(world.waves(box, 3, 20), box), world.load(box, 3, 20).x)
    assert world.rate_of(box) == 8000


def test_a_corruption_of_waveforms_comes_before_the_front_end() -> None:
    of, world = inputs("audio-world"), registry.make("task", "audio-world")
    streams = ExampleStreams(0, world.load(of.box, 0, 4).ids, "white_noise 4")
    noisy = registry.make("corruption", "white_noise", {"rate": 8000})(world.waves(of.box, 0, 4), 4, streams)
    assert torch.equal(of.load_corrupted(HISS, 0, 4), world.hear(noisy, of.box))
    raw = inputs("audio-world", WAVE).load_corrupted(HISS, 0, 4)
    assert raw.shape == (4, *WAVE.shape) and raw.min() < -0.1
    assert of.make_corruption(Corrupted("low_pass", 1)).level(1) == "3600 Hz"


def test_what_can_not_act_fails_its_cell_and_never_passes_clean_inputs_on() -> None:
    with pytest.raises(AttackError, match="time_mask acts on log-mel; the encoder's box is waveform"):
        inputs("audio-world", WAVE).load_corrupted(Corrupted("time_mask", 1), 0, 2)
    with pytest.raises(AttackError, match="white_noise acts on waveforms, which ThermalWorld does not have"):
        inputs().load_corrupted(HISS, 0, 2)


@pytest.mark.parametrize(
    ("name", "box", "corrupted", "text"),
    [
        (
            "image-world",
            (3, 24, 32),
            Corrupted("fog", 1),
            "fog needs a box of 32 x 32 pixels or more; the encoder's is ",
        ),
        ("image-world", (3, 32, 32), Corrupted("fog", 1), ""),
        ("thermal-world", (1, 8, 8), Corrupted("netd", 1), ""),
        (
            "audio-world",
            (1, 8000),
            Corrupted("time_mask", 1),
            "time_mask acts on log-mel; the encoder's box is waveform",
        ),
        ("audio-world", (1, 8000), HISS, ""),
    ],
)
def test_what_can_not_act_is_known_before_a_run(
    name: str, box: tuple[int, ...], corrupted: Corrupted, text: str
) -> None:
    one = WAVE if len(box) == 2 else Box(shape=box)
    found = inputs(name, one).explain_misfit(corrupted)
    assert found.startswith(text) and bool(found) == bool(text)


@pytest.mark.parametrize(
    ("body", "fails"),
    [
        ("(x + 0.1 * torch.randn_like(x)).clamp(0, 1)", True),
        ("x.flip(0)", True),
        ("(x - x.mean()).clamp(0, 1)", True),
        ("(x + 0.1 * streams.normal(x.shape[1:])).clamp(0, 1)", False),
    ],
)
def test_a_corruption_of_ones_own_changes_an_example_alone_as_in_a_batch(body: str, fails: bool) -> None:
    code = f"def act(self, x, severity, streams): return {body}"
    space: dict[str, object] = {"torch": torch}
    exec(code, space)
    kind = type("Own", (), {"__module__": "own", "__call__": space["act"]})
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    streams = ExampleStreams(0, ("a", "b", "c"), "own 1")
    if not fails:
        assert module._unit(kind(), Corrupted("own", 1), x, streams).shape == x.shape
        return
    with pytest.raises(AttackError, match="own changes an example in another way when it is alone"):
        module._unit(kind(), Corrupted("own", 1), x, streams)


def test_a_plan_skips_corruptions_that_need_a_larger_box(tmp_path: Path) -> None:
    lines = "suite: small\nversion: 1\nsummary: S.\nmodality: image\ntask: {name: blobs}\nperturbations:\n  - clean\n"
    fog = "  - {corruption: fog, severity: 1}\n"
    both = "  - {corruption: fog, severity: 2, then: {attack: pgd, norm: linf, eps: 4/255}}\n"
    (tmp_path / "small.yaml").write_text(lines + fog + both + "  - {attack: pgd, norm: linf, eps: 4/255}\n")
    cells = plan(str(tmp_path / "small.yaml"), "linear", store=tmp_path / "out", examples=4).cells
    assert {str(cell.perturbation): "32 x 32" in (cell.skipped or "") for cell in cells} == {
        "clean": False,
        "fog 1": True,
        "fog 2 + pgd linf 4/255": True,
        "pgd linf 4/255": False,
    }
    (tmp_path / "small.yaml").write_text(lines + fog)
    with pytest.raises(
        KnowledgeError, match="suite small has nothing to run but clean inputs: fog needs a box of 32 x"
    ):
        plan(str(tmp_path / "small.yaml"), "linear", store=tmp_path / "out", examples=4)


@pytest.mark.parametrize(
    ("name", "box", "corruption"), [("thermal-world", None, "netd"), ("audio-world", WAVE, "speed")]
)
def test_corrupted_inputs_are_kept_bit_for_bit(name, box, corruption, tmp_path, monkeypatch) -> None:
    one, of = Corrupted(corruption, 2), inputs(name, box, tmp_path)
    first = of.load_corrupted(one, 0, 3)
    assert torch.equal(first, inputs(name, box).load_corrupted(one, 0, 3))
    [file] = tmp_path.iterdir()
    before = file.read_bytes()
    monkeypatch.setattr(module, "_unit", lambda *of: pytest.fail("computed again"))
    assert torch.equal(of.load_corrupted(one, 0, 3), first)
    monkeypatch.undo()
    for damaged in (before[:-9], b"", before[:40] + bytes([before[40] ^ 1]) + before[41:]):
        file.write_bytes(damaged)
        assert torch.equal(of.load_corrupted(one, 0, 3), first) and file.read_bytes() == before
    others = [inputs(name, box, tmp_path, seed=1).load_corrupted(one, 0, 3)]
    others += [of.load_corrupted(replace(one, severity=3), 0, 3), of.load_corrupted(one, 3, 6)]
    assert len(list(tmp_path.iterdir())) == 4


def test_the_oldest_go_when_there_is_no_room(tmp_path, monkeypatch) -> None:
    of = inputs(folder=tmp_path)
    of.load_corrupted(Corrupted("netd", 1), 0, 2)
    [first] = tmp_path.iterdir()
    monkeypatch.setattr(input_files, "LIMIT", 3 * first.stat().st_size // 2)
    of.load_corrupted(Corrupted("netd", 2), 0, 2)
    assert [path != first for path in tmp_path.iterdir()] == [True]


HEAD = "suite: s\nversion: 1\nsummary: S.\nexamples: 8\n"
THERMAL = "modality: thermal\ntask: {name: thermal-world}\nperturbations:\n"
BOTH = "  - {corruption: netd, severity: [1, 3], then: {attack: fgsm, norm: linf, eps: [4/255, 2/255]}}\n"


def suite(folder: Path, text: str) -> Path:
    (folder / "s.yaml").write_text(text)
    return folder / "s.yaml"


def test_a_corruption_then_an_attack_from_yaml_to_records(tmp_path) -> None:
    path = suite(tmp_path, f"{HEAD}{THERMAL}{BOTH}  - {{corruption: netd, severity: 3}}\n")
    loaded = load_suite(path)
    columns = [str(one) for one in loaded.perturbations]
    assert columns[1:5] == [f"netd {s} + fgsm linf {e}/255" for s in (1, 3) for e in (4, 2)]
    tops = [one for one in loaded.perturbations if isinstance(one, Composed) and str(one).endswith("4/255")]
    assert [[str(e) for e in one.adversarial.ladder] for one in tops] == [["2/255"]] * 2
    records = {str(record.perturbation): record for record in run(loaded, "rlbind", out=tmp_path / "store", workers=1)}
    assert set(records) == set(columns) and all(record.error is None for record in records.values())
    counts = [records[name].n_correct for name in ("netd 3", "netd 3 + fgsm linf 2/255", "netd 3 + fgsm linf 4/255")]
    assert counts[0] >= counts[1] >= counts[2]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{corruption: netd, severity: 1, then: {norm: linf, eps: 1}}", "the key 'attack' is missing"),
        ("{corruption: netd, severity: 1, then: {attack: pgd, eps: 1}}", "attack 'pgd' needs the key 'norm'"),
        ("{corruption: netd, severity: 1, then: {attack: pgq, norm: linf, eps: 1}}", "did you mean 'pgd'"),
        ("{corruption: netd, severity: 1, attack: pgd, norm: linf, eps: 1}", "which may have then"),
        ("{corruption: white_noise, severity: 1}", "is for audio; the suite's modality is thermal"),
    ],
)
def test_mistakes_in_compositions(tmp_path, entry, said) -> None:
    with pytest.raises(SuiteError, match=said):
        load_suite(suite(tmp_path, f"{HEAD}{THERMAL}  - {entry}\n"))


def test_a_suite_of_several_parts(tmp_path) -> None:
    parts = load_suites("robot")
    assert [one.modality for one in parts] == ["image", "thermal", "audio", "video"]
    assert {one.name for one in parts} == {"robot"} and load_suite("robot:audio").modality == "audio"
    with pytest.raises(SuiteError, match="choose one: robot:image, robot:thermal"):
        load_suite("robot")
    with pytest.raises(UnknownName, match="did you mean 'thermal'"):
        load_suites("robot:thermol")
    planned = plan("robot", "rlbind", store=tmp_path / "store", examples=4)
    assert len(planned.pairs) == 4 and len({cell.perturbation for cell in planned.cells}) > 13


def test_parts_are_checked(tmp_path) -> None:
    body = "  - modality: thermal\n    task: {name: thermal-world}\n    perturbations: [clean]\n"
    with pytest.raises(SuiteError, match=r":9: .*'thermal' appears twice"):
        load_suites(suite(tmp_path, f"{HEAD}parts:\n{body}{body}"))
    with pytest.raises(SuiteError, match="modality"):
        load_suites(suite(tmp_path, f"{HEAD}modality: thermal\nparts:\n{body}"))


def test_a_matrix_of_sounds_with_its_wav_files() -> None:
    few = ("clean", "speed 1", "speed 5", "time_mask 5")
    whole = load_suite("audio-c")
    small = replace(whole, perturbations=tuple(one for one in whole.perturbations if str(one) in few))
    assert has_only_corruptions(small) and not has_only_corruptions(load_suite("audio"))
    shown = matrix(small, "rlbind")
    assert [row.name for row in shown.rows] == ["speed", "time_mask"] and shown.rows[0].levels == {
        1: "1.05 x",
        5: "1.25 x",
    }
    assert sorted(shown.sounds) == ["clean", "speed-1", "speed-5"]
    wave, rate = soundfile.read(BytesIO(shown.sounds["speed-5"]))
    assert rate == 8000 and len(wave) == 8000 and np.abs(wave).max() > 0.1
    assert Image.open(BytesIO(draw_matrix(shown))).size[0] > 300


def test_a_matrix_marks_what_is_not_ordered() -> None:
    whole = load_suite("image-c")
    small = replace(whole, perturbations=tuple(one for one in whole.perturbations if str(one)[:4] in ("clea", "satu")))
    shown = matrix(small, "rlbind")
    assert [row.name for row in shown.rows] == ["saturate *"] and "not ordered" in shown.note and not shown.sounds
