"""Sheets of a suite's first examples, perturbed and evaluated as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import cast

import torch
from torch import Tensor

from rlbench.core import Adversarial, Clean, Corrupted, Modality, Perturbation, Suite, Worst
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.encoders.models import resolve
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import PerturbedBlock, perturb
from rlbench.engine.block.inputs import Recorded
from rlbench.engine.cells.groups import group_of, is_aggregate
from rlbench.report.figures.draw import CorruptionRow, Guess, Matrix, Sheet
from rlbench.store.blocks import Block

_FIRST = 16  # examples that a matrix chooses from


def choose(suite: Suite, text: str | None = None) -> Perturbation:
    """A perturbation of a suite.

    Args:
        suite: to choose from.
        text: the perturbation as a board's column names it. None: the middle eps of the suite's first attack; in a
            suite without attacks, its first corruption; in a suite with neither, none.

    Raises:
        UnknownName: the suite has no such perturbation.
        FieldError: it is a worst case, which is not a single perturbation.
    """
    columns = {str(one): one for one in suite.perturbations}
    if text is not None:
        found = columns.get(text)
        if found is None:
            raise UnknownName(f"perturbation of suite {suite.name}", text, columns)
        if is_aggregate(found) or isinstance(found, Worst):
            raise FieldError(f"{text!r} is the worst case over several attacks; choose one of them to show")
        return found
    attacks = [one for one in suite.perturbations if isinstance(one, Adversarial) and not is_aggregate(one)]
    same = [one for one in attacks if (one.attack, one.threat.norm) == (attacks[0].attack, attacks[0].threat.norm)]
    corrupted = [one for one in suite.perturbations if isinstance(one, Corrupted)]
    return same[len(same) // 2] if same else corrupted[0] if corrupted else Clean()


def corruptions(suite: Suite) -> dict[str, list[Corrupted]]:
    """The suite's corruptions at their severities, by name with fields."""
    found: dict[str, list[Corrupted]] = {}
    for one in suite.perturbations:
        if isinstance(one, Corrupted):
            found.setdefault(f"{one.call}{one.place}", []).append(one)
    return found


def has_only_corruptions(suite: Suite) -> bool:
    """Whether the suite has corruptions and no attacks."""
    return bool(corruptions(suite)) and all(isinstance(one, Clean | Corrupted) for one in suite.perturbations)


def matrix(suite: Suite, model: str, *, device: str = "cpu", batch_size: int = 64) -> Matrix:
    """One example under all corruptions of a suite: of the first 16 test examples, the one with the largest margin.

    Args:
        suite: with corruptions.
        model: a name, see `encoders.models`.
        device: a torch device.
        batch_size: the most examples of a forward pass.

    Raises:
        FieldError: the suite has no corruption.
        AttackError: a corruption broke its contract.
        RLBenchError: as `bench.prepare`.
    """
    if suite.sensors:
        raise FieldError(f"suite {suite.name} has several sensors; choose a --perturbation to show")
    if not corruptions(suite):
        raise FieldError(f"suite {suite.name} has no corruption without an attack; choose a --perturbation to show")
    model = resolve(model).name
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    shown = perturb(bench, Clean(), 0, min(_FIRST, suite.task.size("test") or _FIRST))
    k = int(shown.clean.margin.argmax())
    rows: list[CorruptionRow] = []
    sounds: dict[str, bytes] = {}
    unordered = False
    for name, severities in corruptions(suite).items():
        plugin = bench.inputs.make_corruption(severities[0])
        unordered |= not getattr(plugin, "ordered", True)
        rows.append(_row(bench, name, severities, k, plugin))
        sounds |= {f"{name}-{one.severity}": wav for one in severities if (wav := _wav(bench, one, k))}
    return Matrix(
        title=f"{suite.name} v{suite.version} · {model} · {bench.class_names[int(shown.clean.label[k])]}",
        modality=cast(Modality, suite.modality),
        box=bench.box,
        clean=shown.x[k].cpu(),
        guess=_guesses(bench, shown.clean)[k],
        rows=tuple(rows),
        note="* the published severities are not ordered by distortion" if unordered else "",
        sounds=({"clean": _encode_wav(*_recording(bench, k))} if sounds else {}) | sounds,
    )


def _row(bench: Bench, name: str, severities: Sequence[Corrupted], k: int, plugin: object) -> CorruptionRow:
    """Example k under one corruption.

    Args:
        bench: with the example.
        name: of the corruption, with its fields.
        severities: the corruption at each severity of the suite.
        k: index of the example.
        plugin: the corruption's code.
    """
    shown = {one.severity: perturb(bench, one, k, k + 1) for one in severities}
    meaning = getattr(plugin, "level", lambda severity: "")
    return CorruptionRow(
        name=name if getattr(plugin, "ordered", True) else f"{name} *",
        pictures={s: one.x_adv[0].cpu() for s, one in shown.items()},
        guesses={s: _guesses(bench, one.perturbed)[0] for s, one in shown.items()},
        levels={s: meaning(s) for s in shown},
    )


def _wav(bench: Bench, corrupted: Corrupted, k: int) -> bytes | None:
    """Example k as a corrupted sound, a WAV file; None if the corruption does not act on waveforms."""
    found = bench.inputs.load_sounds(corrupted, k, k + 1)
    return None if found is None else _encode_wav(found[0][0], found[1])


def _recording(bench: Bench, k: int) -> tuple[Tensor, int]:
    """The clean waveform of example k and its sampling rate in Hz."""
    task: object = bench.task
    assert isinstance(task, Recorded)  # since it has corrupted sounds
    return task.waves(bench.box, k, k + 1), task.rate_of(bench.box)


def _encode_wav(waves: Tensor, rate: int) -> bytes:
    """A waveform (1, 1, samples) in [0, 1] as a WAV file with 16 bits per sample."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, (2 * waves[0, 0] - 1).numpy(), rate, "PCM_16", format="WAV")
    return file.getvalue()


def collect(
    suite: Suite, model: str, perturbation: Perturbation, examples: int, *, device: str = "cpu", batch_size: int = 64
) -> Sheet:
    """The first test examples of a suite, perturbed as in a run, with the model's predictions.

    Args:
        suite: with the task.
        model: a name, see `encoders.models`.
        perturbation: a single one, not a worst case.
        examples: at most this many, 1 or more.
        device: a torch device.
        batch_size: the most examples of a forward pass.

    Raises:
        DataError: there is no example to show.
        AttackError: the attack or corruption broke its contract.
        RLBenchError: as `bench.prepare`.
    """
    size = suite.task.size("test")
    if examples < 1 or (size is not None and size < 1):
        raise DataError(
            f"suite {suite.name} has {size} test examples and {examples} were asked for; at least 1 is needed"
        )
    model = resolve(model).name
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    return show(bench, model, perturbation, examples if size is None else min(examples, size))


def show(bench: Bench, model: str, perturbation: Perturbation, examples: int) -> Sheet:
    """The first test examples of a bench, perturbed as in a run, with the model's predictions.

    Args:
        bench: the encoder on the task.
        model: the encoder's full name, for the title.
        perturbation: a single one, not a worst case.
        examples: how many, at most those of the task.

    Raises:
        AttackError: the attack or corruption broke its contract.
    """
    shown = perturb(bench, perturbation, 0, examples)
    return Sheet(
        title=f"{bench.suite.name} v{bench.suite.version} · {model} · {perturbation}",
        modality=cast(Modality, bench.modality),  # of several sensors, see `sensor_sheets`
        box=bench.box,
        x=shown.x,
        x_adv=shown.x_adv,
        labels=tuple(bench.class_names[k] for k in shown.clean.label.tolist()),
        clean=_guesses(bench, shown.clean),
        perturbed=_guess_of_texts(bench.under(group_of(perturbation)), shown),
    )


def _guess_of_texts(bench: Bench, shown: PerturbedBlock) -> tuple[Guess, ...]:
    """The predictions, with the texts that an attacker chose for the true and the predicted class, if any."""
    guesses = _guesses(bench, shown.perturbed)
    if bench.texts is None:
        return guesses
    with torch.no_grad():
        scores = torch.cat([bench.classifier(part) for part in torch.split(shown.x_adv, bench.batch_size)])
    y = torch.from_numpy(shown.clean.label)
    picked = bench.texts.choose.pick(scores.cpu(), y)
    found = []
    for guess, row, *pair in zip(guesses, picked, y.tolist(), shown.perturbed.prediction.tolist(), strict=True):
        words = dict.fromkeys(word for k in pair if (word := bench.texts.words[int(row[k])]))
        found.append(replace(guess, name=f"{guess.name} ({', '.join(map(repr, words))})" if words else guess.name))
    return tuple(found)


def _guesses(bench: Bench, block: Block) -> tuple[Guess, ...]:
    names = bench.class_names
    return tuple(Guess(names[k], bool(right)) for k, right in zip(block.prediction, block.correct, strict=True))
