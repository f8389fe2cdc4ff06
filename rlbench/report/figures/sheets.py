"""What a sheet shows: a suite's first examples, perturbed and judged as a run does it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from torch import Tensor

from rlbench.core import Adversarial, Clean, Corrupted, Perturbation, Suite, Worst
from rlbench.core.errors import DataError, FieldError, UnknownName
from rlbench.encoders.models import resolve
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.evaluate import perturb
from rlbench.engine.block.inputs import Recorded
from rlbench.report.figures.draw import CorruptionRow, Guess, Matrix, Sheet
from rlbench.store.blocks import Block

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
        title=f"{suite.name} v{suite.version} · {resolve(model).name} · {bench.class_names[int(shown.clean.label[k])]}",
        modality=suite.modality,
        box=bench.box,
        clean=shown.x[k].cpu(),
        guess=_guesses(bench, shown.clean)[k],
        rows=tuple(rows),
        note="* the published severities are not ordered by distortion" if unordered else "",
        sounds=({"clean": _encode_wav(*_recording(bench, k))} if sounds else {}) | sounds,
    )


def _row(bench: Bench, name: str, severities: Sequence[Corrupted], k: int, plugin: object) -> CorruptionRow:
    shown = {one.severity: perturb(bench, one, k, k + 1) for one in severities}
    meaning = getattr(plugin, "level", lambda severity: "")
    return CorruptionRow(
        name=name if getattr(plugin, "ordered", True) else f"{name} *",
        pictures={s: one.x_adv[0].cpu() for s, one in shown.items()},
        guesses={s: _guesses(bench, one.perturbed)[0] for s, one in shown.items()},
        levels={s: meaning(s) for s in shown},
    )


def _wav(bench: Bench, corrupted: Corrupted, k: int) -> bytes | None:
    """The corrupted sound as a WAV file, where the corruption acts on waveforms."""
    found = bench.inputs.load_sounds(corrupted, k, k + 1)
    return None if found is None else _encode_wav(found[0][0], found[1])


def _recording(bench: Bench, k: int) -> tuple[Tensor, int]:
    task: object = bench.task
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
    return show(bench, model, perturbation, examples if size is None else min(examples, size))


def show(bench: Bench, model: str, perturbation: Perturbation, examples: int) -> Sheet:
    """The first test examples of a bench, perturbed as a run does it, with the model's predictions.

    Raises: AttackError: the attack or corruption broke its contract.
    """
    shown = perturb(bench, perturbation, 0, examples)
    return Sheet(
        title=f"{bench.suite.name} v{bench.suite.version} · {resolve(model).name} · {perturbation}",
        modality=bench.modality,
        box=bench.box,
        x=shown.x,
        x_adv=shown.x_adv,
        labels=tuple(bench.class_names[k] for k in shown.clean.label.tolist()),
        clean=_guesses(bench, shown.clean),
        perturbed=_guesses(bench, shown.perturbed),
    )


def _guesses(bench: Bench, block: Block) -> tuple[Guess, ...]:
    names = bench.class_names
    return tuple(Guess(names[k], bool(right)) for k, right in zip(block.prediction, block.correct, strict=True))
