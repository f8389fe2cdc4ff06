"""What a sheet shows: a suite's first examples, perturbed and judged as a run does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlbench import registry
from rlbench.checkpoints import resolve
from rlbench.core import Adversarial, Clean, Composed, Corrupted, Perturbation, Suite, Worst
from rlbench.drawing import Guess, Sheet
from rlbench.errors import DataError, FieldError, UnknownName
from rlbench.evaluate import Bench, prepare
from rlbench.judge import Meter, judge, run_attack
from rlbench.metrics import margin
from rlbench.seeds import ExampleStreams
from rlbench.threat import ball_of


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
    found = _perturbed(bench, perturbation, x, y, batch.ids)
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


def _perturbed(bench: Bench, perturbation: Perturbation, x: Tensor, y: Tensor, ids: tuple[str, ...]) -> Tensor:
    corrupted = perturbation.corrupted if isinstance(perturbation, Composed) else perturbation
    attack = perturbation.adversarial if isinstance(perturbation, Composed) else perturbation
    if isinstance(corrupted, Corrupted):
        x = bench.inputs.corrupted(corrupted, 0, len(x)).to(bench.device)
    return _attacked(bench, attack, perturbation, x, y, ids) if isinstance(attack, Adversarial) else x


def _attacked(
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
