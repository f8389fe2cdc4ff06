"""Corruptions of the sound reach a folder's recordings before the front end, whatever their rates and lengths."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rlbench.core import Box, Corrupted, registry
from rlbench.core.errors import AttackError, DataError
from rlbench.core.media import filterbank
from rlbench.corruptions import corrupt
from rlbench.engine.block.inputs import Inputs, Recorded
from rlbench.engine.run.runner import run

MEL, WAVE = Box(shape=(1, 64, 64), unit="log-mel"), Box(shape=(1, 4000), low=-1.0, unit="waveform", rate=16000)
FBANK = Box(shape=(1, 64, 100), unit="fbank", low=filterbank.LOW, high=filterbank.HIGH)
HISS = Corrupted("white_noise", 5)


@pytest.fixture
def pack(tmp_path) -> Path:
    """Four recordings of two classes at four rates, 0.4 to 0.9 s long, one in stereo."""
    lines, g = ["path,label,split,source"], np.random.default_rng(0)
    for i, (rate, seconds) in enumerate(((8000, 0.4), (16000, 0.5), (22050, 0.7), (44100, 0.9))):
        tone = 0.4 * np.sin(2 * np.pi * 440 * (1 + i) * np.arange(int(rate * seconds)) / rate)
        noisy = tone + 0.01 * g.standard_normal(len(tone))
        soundfile.write(tmp_path / f"{i}.wav", np.stack([noisy, tone], 1) if i == 3 else noisy, rate)
        lines.append(f"{i}.wav,{'ab'[i % 2]},test,{i}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "classes.csv").write_text("label,name\na,hum\nb,whistle\n")
    (tmp_path / "prompts.txt").write_text("the sound of a {}.\n")
    return tmp_path


def inputs(pack: Path, box: Box) -> Inputs:
    task = registry.make("task", "folder", {"data": str(pack), "modality": "audio"})
    return Inputs(task, task.fingerprint(), box, 0)


@pytest.mark.parametrize("box", [MEL, WAVE, FBANK])
def test_the_front_end_makes_of_the_recordings_what_the_task_loads(pack, box) -> None:
    task = inputs(pack, box).task
    assert isinstance(task, Recorded)
    assert task.rate_of(box) == {"log-mel": 8000, "waveform": 16000, "fbank": filterbank.RATE}[box.unit]
    heard = torch.cat([task.hear(task.waves(box, i, i + 1), box) for i in range(4)])
    assert torch.equal(heard, task.load(box, 0, 4).x)


def test_recordings_of_a_window_come_as_a_batch_whole_ones_one_by_one(pack) -> None:
    task = inputs(pack, MEL).task
    waves = task.waves(MEL, 0, 4)
    assert waves.shape == (4, 1, 8000) and waves.dtype == torch.float64 and 0 <= waves.min() <= waves.max() <= 1
    assert task.waves(MEL, 4, 9).shape[0] == 0
    with pytest.raises(DataError, match="recordings 0 to 3 differ in length; ask for one at a time"):
        task.waves(FBANK, 0, 4)


@pytest.mark.parametrize("box", [MEL, WAVE, FBANK])
def test_a_corruption_comes_before_the_front_end_at_the_recordings_own_rate(pack, box) -> None:
    of = inputs(pack, box)
    x, ids = of.load(0, 4).x, of.load(0, 4).ids
    noisy = of.load_corrupted(HISS, 0, 4)
    assert noisy.shape == x.shape and (noisy - x).abs().flatten(1).mean(1).min() > 0.01
    wave = of.task.waves(box, 2, 3)
    alone = corrupt(wave, "white_noise", 5, ids=ids[2:3], rate=of.task.rate_of(box))
    assert torch.equal(of.task.hear(alone, box), noisy[2:3])
    assert torch.equal(of.load_corrupted(HISS, 2, 4), noisy[2:])  # whatever the block


def test_samples_beyond_full_scale_are_cut_off(pack) -> None:
    soundfile.write(pack / "0.wav", np.full(8000, 1.5), 8000, subtype="FLOAT")
    task = inputs(pack, WAVE).task
    loud = next(i for i, name in enumerate(task.load(WAVE, 0, 4).ids) if name == "0.wav")
    assert task.waves(WAVE, loud, loud + 1).max() == 1.0


def test_pictures_have_no_waves_to_corrupt() -> None:
    world = registry.make("task", "thermal-world")
    with pytest.raises(AttackError, match="which ThermalWorld does not have"):
        Inputs(world, "", Box(shape=(1, 32, 32), unit="log-mel"), 0).load_sounds(HISS, 0, 1)


def test_from_a_suite_to_records(pack, tmp_path) -> None:
    text = "suite: s\nversion: 1\nsummary: S.\nmodality: audio\ntask: {name: folder, modality: audio, data: .}\n"
    cells = "perturbations:\n  - clean\n  - {corruption: [reverberation, telephone], severity: 3}\n"
    (pack / "s.yaml").write_text(text + cells)
    records = run(pack / "s.yaml", "languagebind", out=tmp_path / "store", workers=1)
    assert [(str(one.perturbation), one.error, one.n) for one in records] == [
        ("clean", None, 4),
        ("reverberation 3", None, 4),
        ("telephone 3", None, 4),
    ]
