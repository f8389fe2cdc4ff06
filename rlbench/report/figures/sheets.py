"""What a sheet shows: a suite's first examples, perturbed and judged as a run does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import torch
from torch import Tensor

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Perturbation, Suite, Worst, registry
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import ball_of
from rlbench.encoders.models import resolve
from rlbench.engine.attack.judge import judge, run_attack
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.evaluate import Bench, prepare
from rlbench.engine.block.inputs import Recorded
from rlbench.report.figures.draw import Guess, Matrix, Row, Sheet

_FIRST = 16  # examples that a matrix chooses from


def choose(suite: Suite, text: str | None = None) -> Perturbation:
    """The suite's perturbation of this column name; without one, its first attack at the middle eps.

    Raises:
        UnknownName; FieldError for a worst case, which is no single perturbation.
    """
    columns = {str(one): one for one in suite.perturbations}
    if text is not None:
        found = columns.get(text)
        if found is None:
            raise UnknownName(f"perturbation of suite {suite.name}", text, columns)
        if isinstance(found, Worst):
            raise FieldError(f"{text!r} is over several attacks; choose one of them to show")
        return found
    attacks = [one for one in suite.perturbations if isinstance(one, Adversarial)]
    same = [one for one in attacks if (one.attack, one.threat.norm) == (attacks[0].attack, attacks[0].threat.norm)]
    corrupted = [one for one in suite.perturbations if isinstance(one, Corrupted)]
    return same[len(same) // 2] if same else corrupted[0] if corrupted else Clean()


def corruptions(suite: Suite) -> dict[str, list[Corrupted]]:
    """The suite's corruptions, by name with their fields: what `matrix` shows."""
    found: dict[str, list[Corrupted]] = {}
    for one in suite.perturbations:
        if isinstance(one, Corrupted):
            found.setdefault(str(one).removesuffix(f" {one.severity}"), []).append(one)
    return found


def only_corruptions(suite: Suite) -> bool:
    """The suite has corruptions and no attack."""
    return bool(corruptions(suite)) and all(isinstance(one, Clean | Corrupted) for one in suite.perturbations)


def matrix(suite: Suite, model: str, *, device: str = "cpu", batch_size: int = 64) -> Matrix:
    """Of the suite's first 16 test examples, the one that the model is surest of, under all corruptions of the suite.

    Raises:
        RLBenchError: as `evaluate.prepare`; FieldError: the suite has no corruption;
        AttackError: a corruption broke its contract.
    """
    if not corruptions(suite):
        raise FieldError(f"suite {suite.name} has no corruption alone; choose a --perturbation to show")
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    batch = bench.inputs.load(0, min(_FIRST, suite.task.size("test") or _FIRST))
    names = [label.name for label in suite.task.classes]
    clean = _guesses(bench, batch.x.to(device), batch.y.to(device), names)
    k = int(margin(_logits(bench, batch.x.to(device)), batch.y.to(device)).argmax())
    rows: list[Row] = []
    sounds: dict[str, bytes] = {}
    unordered = False
    for name, severities in corruptions(suite).items():
        plugin = bench.inputs.made(severities[0])
        unordered |= not getattr(plugin, "ordered", True)
        rows.append(_row(bench, name, severities, k, batch.y[k : k + 1].to(device), plugin))
        sounds |= {f"{name}-{one.severity}": wav for one in severities if (wav := _wav(bench, one, k))}
    return Matrix(
        title=f"{suite.name} v{suite.version} · {resolve(model).name} · {names[int(batch.y[k])]}",
        modality=suite.modality,
        box=bench.box,
        clean=batch.x[k],
        guess=clean[k],
        rows=tuple(rows),
        note="* the published severities are not ordered by distortion" if unordered else "",
        sounds=({"clean": _encode_wav(*_recording(bench, k))} if sounds else {}) | sounds,
    )


def _row(bench: Bench, name: str, severities: Sequence[Corrupted], k: int, y: Tensor, plugin: object) -> Row:
    names = [label.name for label in bench.suite.task.classes]
    pictures = {one.severity: bench.inputs.corrupted(one, k, k + 1) for one in severities}
    guesses = {s: _guesses(bench, x.to(bench.device), y, names)[0] for s, x in pictures.items()}
    meaning = getattr(plugin, "level", lambda severity: "")
    return Row(
        name=name if getattr(plugin, "ordered", True) else f"{name} *",
        pictures={s: x[0] for s, x in pictures.items()},
        guesses=guesses,
        levels={s: meaning(s) for s in pictures},
    )


def _wav(bench: Bench, corrupted: Corrupted, k: int) -> bytes | None:
    """The corrupted sound as a WAV file, where the corruption acts on waveforms."""
    found = bench.inputs.sounds(corrupted, k, k + 1)
    return None if found is None else _encode_wav(found[0][0], found[1])


def _recording(bench: Bench, k: int) -> tuple[Tensor, int]:
    task: object = bench.suite.task
    assert isinstance(task, Recorded)  # since it has corrupted sounds
    return task.waves(bench.box, k, k + 1), task.rate_of(bench.box)


def _encode_wav(waves: Tensor, rate: int) -> bytes:
    """(1, 1, samples) in [0, 1] as a WAV file of 16 bits."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, (2 * waves[0, 0] - 1).numpy(), rate, "PCM_16", format="WAV")
    return file.getvalue()


def collect(
    suite: Suite, model: str, perturbation: Perturbation, examples: int, *, device: str = "cpu", batch_size: int = 64
) -> Sheet:
    """The suite's first test examples, perturbed as a run does it, with the model's predictions.

    Raises:
        RLBenchError: as `evaluate.prepare`; AttackError: the attack or corruption broke its contract.
    """
    size = suite.task.size("test")
    if examples < 1 or (size is not None and size < 1):
        raise DataError(
            f"suite {suite.name} has {size} test examples and {examples} were asked for; it takes 1 or more"
        )
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    batch = bench.inputs.load(0, examples if size is None else min(examples, size))
    x, y = batch.x.to(device), batch.y.to(device)
    names = [label.name for label in suite.task.classes]
    found = _perturb(bench, perturbation, x, y, batch.ids)
    return Sheet(
        title=f"{suite.name} v{suite.version} · {resolve(model).name} · {perturbation}",
        modality=suite.modality,
        box=bench.box,
        x=x,
        x_adv=found,
        labels=tuple(names[k] for k in batch.y.tolist()),
        clean=_guesses(bench, x, y, names),
        perturbed=_guesses(bench, found, y, names),
    )


def _guesses(bench: Bench, x: Tensor, y: Tensor, names: Sequence[str]) -> tuple[Guess, ...]:
    logits = _logits(bench, x)
    correct = (margin(logits, y) > 0).tolist()
    return tuple(Guess(names[k], right) for k, right in zip(logits.argmax(1).tolist(), correct, strict=True))


def _logits(bench: Bench, x: Tensor) -> Tensor:
    with torch.no_grad():
        return Meter(bench.classifier, len(x), batch_size=bench.batch_size)(x)


def _perturb(bench: Bench, perturbation: Perturbation, x: Tensor, y: Tensor, ids: tuple[str, ...]) -> Tensor:
    corrupted = perturbation.corrupted if isinstance(perturbation, Composed) else perturbation
    attack = perturbation.adversarial if isinstance(perturbation, Composed) else perturbation
    if isinstance(corrupted, Corrupted):
        x = bench.inputs.corrupted(corrupted, 0, len(x)).to(bench.device)
    return _attack(bench, attack, perturbation, x, y, ids) if isinstance(attack, Adversarial) else x


def _attack(
    bench: Bench, attack: Adversarial, whole: Perturbation, x: Tensor, y: Tensor, ids: tuple[str, ...]
) -> Tensor:
    """Up the ladder as in a run: what a smaller eps broke is kept, clean errors are not attacked."""
    method = registry.make("attack", attack.attack, dict(attack.fields))
    x_adv, left = x.clone(), margin(_logits(bench, x), y) > 0
    for eps in (*attack.ladder, attack.threat.eps):
        rows = left.nonzero()[:, 0]
        if not len(rows):
            break
        rung = replace(attack, threat=replace(attack.threat, eps=eps))
        name = str(replace(whole, adversarial=rung) if isinstance(whole, Composed) else rung)
        streams = ExampleStreams(bench.suite.seed, ids, name).take(rows.tolist())
        ball, meter = ball_of(rung.threat, bench.box), Meter(bench.classifier, len(rows), batch_size=bench.batch_size)
        found = run_attack(method, meter, x[rows], y[rows], ball, streams)
        left[rows] = judge(meter, found, x[rows], y[rows], ball).correct.to(left.device)
        x_adv[rows] = found
    return x_adv
