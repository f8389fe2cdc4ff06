"""Universal perturbations: made once per model, suite and attack, on examples of another split, and held in the store.

    <store>/universal/<key>.npz    the perturbation and its passes; the key contains all that it depends on

One process makes it while others wait; where they share no disk, each makes it, and all come to the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Adversarial, Composed, Field, Perturbation, Split, Suite, Task, registry
from rlbench.core.errors import DataError
from rlbench.core.files import LOG, hold_lock, place
from rlbench.core.machine import code
from rlbench.core.perturbations import is_universal
from rlbench.engine.attack.elsewhere import Elsewhere, Passes, Universal
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.inputs import check_examples
from rlbench.engine.block.surrogates import explain_surrogate, identify, load_surrogate, meter_of, transfer
from rlbench.engine.cells.keys import cell_key
from rlbench.store.keys import content_hash

OnPass = Callable[[int], None]


class Made(NamedTuple):
    """A universal perturbation (*shape) float32 on the CPU, and the passes that it took."""

    delta: Tensor
    passes: Passes


_HELD: dict[str, Made] = {}  # the last few of this process


def find_elsewhere(bench: Bench, y: Tensor, on_pass: OnPass, first: bool, attack: Adversarial) -> Elsewhere | None:
    """What an attack runs on, if not on the examples and the model under test.

    Args:
        bench: the model under test.
        y: (R,) int64 labels of the examples.
        on_pass: called with the number of examples of every forward pass.
        first: whether this is the task's first block, which counts the passes of a universal perturbation.
        attack: the attack.
    """
    if not is_universal(attack):
        return transfer(bench, attack, y, on_pass=on_pass) if attack.surrogate else None
    made = list[Made]()

    def make() -> Tensor:
        made[:] = [_find(bench, attack, on_pass)]
        return made[0].delta

    seen = ClassifierView(meter_of(bench, y, "fp32"), torch.arange(len(y)))  # which it asks nothing
    return Elsewhere(Universal(make), seen, lambda: made[0].passes if made and first else Passes(0, 0))


def explain_missing(bench: Bench, attack: Adversarial) -> str:
    """Why an attack lacks a surrogate or other examples here, or "". Raises: as `load_surrogate`."""
    reason = explain_surrogate(bench, attack)
    if reason or not is_universal(attack):
        return reason
    if bench.retriever is not None:
        return f"{attack.attack} is for classification; the classes of a retrieval task have no other examples"
    n = _count(attack)
    if choose_split(bench.task, n) is None:
        most = max(bench.task.size("val") or 0, bench.task.size("train") or 0)
        how = f"set examples: {most} or fewer" if most else "it has test examples only"
        return f"{attack.attack} needs {n} examples for validation or training, and the task has {most}; {how}"
    return ""


def choose_split(task: Task, n: int) -> Split | None:
    """The validation split, or else the training split, with at least n examples; None if neither has them."""
    splits: tuple[Split, ...] = ("val", "train")
    sizes = {split: task.size(split) for split in splits}
    return next((split for split, size in sizes.items() if size is None or size >= n), None)


def describe_elsewhere(suite: Suite, p: Perturbation) -> dict[str, Field]:
    """What a record says of an attack on a surrogate or a universal perturbation; nothing of others."""
    attack = p.adversarial if isinstance(p, Composed) else p
    if not isinstance(attack, Adversarial):
        return {}
    found: dict[str, Field] = {"surrogate_weights": attack.surrogate.weights} if attack.surrogate else {}
    if is_universal(attack):
        found["made_on"] = f"{choose_split(suite.task, _count(attack))} 0-{_count(attack) - 1}"
    return found


def _count(attack: Adversarial) -> int:
    """The number of examples on which a universal attack makes its perturbation."""
    return int(registry.make("attack", attack.attack, attack.fields).examples)


def _find(bench: Bench, attack: Adversarial, on_pass: OnPass) -> Made:
    """The perturbation, from this process's memory, or from the store, or made now. Raises: AttackError, DataError."""
    missing = getattr(bench.classifier, "missing", ())
    source = identify(load_surrogate(bench, attack.surrogate)) if attack.surrogate else ""
    own = cell_key(bench.subject(), bench.suite, replace(attack, ladder=(), descending=False))
    key = content_hash([own, missing, source, code()])
    if key not in _HELD:
        make = partial(_make, bench, attack, on_pass)
        found = make() if bench.cache is None else _find_in(bench.cache.with_name("universal"), key, make)
        while len(_HELD) >= 16:
            del _HELD[next(iter(_HELD))]
        _HELD[key] = found
    return _HELD[key]


def _find_in(folder: Path, key: str, make: Callable[[], Made]) -> Made:
    """The perturbation of a key in a folder; one process makes it if it is missing, or each that can't write there."""
    file = folder / f"{key}.npz"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_lock(folder / f"{key}.lock"))
            found = _read(file)
        except OSError as error:
            LOG.warning("each process makes %s again: cannot use it: %s", file, error.strerror or error)
            return make()
        if found is None:
            found = make()
            _write(file, found)
        return found


def _read(file: Path) -> Made | None:
    """Reads a file; None if it is missing or damaged. Raises: OSError."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return Made(torch.from_numpy(arrays["delta"]), Passes(*map(int, arrays["passes"])))
    except (FileNotFoundError, ValueError, KeyError, BadZipFile, EOFError):
        return None


def _write(file: Path, made: Made) -> None:
    sink = io.BytesIO()
    np.savez_compressed(sink, delta=made.delta.numpy(), passes=np.array(made.passes))
    try:
        place(file, sink.getvalue())
    except OSError as error:
        LOG.warning("each process makes %s again: cannot write to %s", file.name, error.strerror or error)


def _make(bench: Bench, attack: Adversarial, on_pass: OnPass) -> Made:
    """Makes the perturbation on the model, or on the attack's surrogate."""
    method = registry.make("attack", attack.attack, attack.fields)
    split = choose_split(bench.task, method.examples)
    if split is None:
        raise DataError(f"{attack.attack} needs {method.examples} examples that are not for testing")
    examples = bench.task.load(bench.box, 0, method.examples, split)
    check_examples(examples, bench.box, 0, method.examples)
    if bench.task.load(bench.box, 0, 1).ids[0] in examples.ids:
        raise DataError(f"the {split} examples of {bench.suite.task_name} are also test examples")
    x, y = examples.x.to(bench.device), examples.y.to(bench.device)
    other = load_surrogate(bench, attack.surrogate) if attack.surrogate else bench
    meter = meter_of(other, y, attack.threat.precision, on_pass=on_pass)
    delta = meter.attempt(lambda: method.make(other.expect(meter), x, y, bench.ball(attack.threat)))
    return Made(delta.cpu(), Passes(int(meter.forwards.sum()), int(meter.backwards.sum())))
