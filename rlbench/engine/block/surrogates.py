"""Attacks on a surrogate: another model on the same task, whose points the model under test then has to classify."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Adversarial, Clean, Composed, Perturbation, Suite, Surrogate, Worst, registry
from rlbench.core.errors import ModalityError, RLBenchError, SuiteError
from rlbench.core.knowledge import explain_lack
from rlbench.core.precision import Precision
from rlbench.encoders.fused import Fused
from rlbench.encoders.models import OWN, SERVERS, resolve
from rlbench.encoders.retrieval import Retriever
from rlbench.engine.attack.elsewhere import Elsewhere, Passes, Transferred
from rlbench.engine.attack.exact import lower
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.block.gallery import Ranked
from rlbench.store.keys import content_hash

_DATA = ("task", "data", "modality", "box")  # facts of a bench that are not its encoder's


def load_surrogate(bench: Bench, surrogate: Surrogate) -> Bench:
    """A surrogate on a bench's task, with its batch size; the bench holds it.

    Raises:
        ModalityError: it lacks the modality.
        SuiteError: it can't be loaded.
        RLBenchError: it is not what the plan loaded.
    """
    if surrogate.name not in bench.surrogates:
        bench.surrogates[surrogate.name] = _load(bench, surrogate.name)
    found = bench.surrogates[surrogate.name]
    if surrogate.identity not in ("", identify(found)):
        raise RLBenchError(f"the surrogate {surrogate.name} is not the one that the run was planned with; run it again")
    missing = getattr(bench.classifier, "missing", ())
    return replace(found, classifier=cast(Fused, found.classifier).without(missing)) if missing else found


def _load(bench: Bench, name: str) -> Bench:
    try:
        model = resolve(name)
        if model.family in (OWN, *SERVERS):
            does = "run code" if model.family == OWN else "send data to a server"
            raise RLBenchError(f"{name} would {does}, which a suite may not ask for; name a model or a run's folder")
        suite = replace(bench.suite, perturbations=(Clean(),))
        return prepare(suite, model.name, device=bench.device, batch_size=bench.batch)
    except ModalityError:
        raise
    except RLBenchError as error:
        raise SuiteError(f"{bench.suite.path}: from: {error}") from None


def identify(surrogate: Bench) -> str:
    """The hash of all that its answers depend on but the examples."""
    return content_hash({name: fact for name, fact in surrogate.subject().items() if name not in _DATA})


def explain_surrogate(bench: Bench, attack: Adversarial) -> str:
    """Why an attack can't find its points on its surrogate, or "". Raises: as `load_surrogate`."""
    if attack.surrogate is None:
        return ""
    try:
        other = load_surrogate(bench, attack.surrogate)
    except ModalityError as error:
        return f"{attack.call}: {error}"
    if other.box.facts() != bench.box.facts():
        return f"{attack.call}: its input is {_describe(other)}, and here {_describe(bench)}; they must be the same"
    lack = explain_lack(attack.attack, registry.make("attack", attack.attack, attack.fields), other.knowledge)
    return f"{attack.call}: {lack}" if lack else ""


def _describe(bench: Bench) -> str:
    shape = " x ".join(map(str, bench.box.shape))
    return f"{shape} {bench.box.unit} in [{bench.box.low:g}, {bench.box.high:g}]"


def identify_surrogates(bench: Bench) -> Suite:
    """The suite, whose attacks know the weights of their surrogates, so that keys and records do.

    Those that can't run here stay as they are.

    Raises: as `load_surrogate`.
    """
    columns = tuple(_change_attacks(p, bench) for p in bench.suite.perturbations)
    return replace(bench.suite, perturbations=columns)


def surrogate_of(p: Perturbation) -> Surrogate | None:
    """The surrogate of an attack; None for other perturbations."""
    attack = p.adversarial if isinstance(p, Composed) else p
    return attack.surrogate if isinstance(attack, Adversarial) else None


def _change_attacks(p: Perturbation, bench: Bench) -> Any:
    if isinstance(p, Composed):
        return replace(p, adversarial=_change_attacks(p.adversarial, bench))
    if isinstance(p, Worst):
        return replace(p, attacks=tuple(_change_attacks(attack, bench) for attack in p.attacks))
    if not isinstance(p, Adversarial) or p.surrogate is None or explain_surrogate(bench, p):
        return p
    other = load_surrogate(bench, p.surrogate)
    return replace(p, surrogate=Surrogate(p.surrogate.name, other.identity.checkpoint, identify(other)))


def meter_of(bench: Bench, labels: Tensor, precision: Precision, **options: Any) -> Meter:
    """A meter of a bench's classifier, as an attack sees it, on examples with these labels (N,)."""
    head = bench.classifier
    make = partial(Ranked, head, labels) if isinstance(head, Retriever) else partial(Meter, head)
    meter: Meter = make(len(labels), batch_size=bench.batch, **options)
    return meter if precision == "fp32" else meter.twin(lower(head, precision))


def transfer(bench: Bench, attack: Adversarial, y: Tensor, **options: Any) -> Elsewhere:
    """An attack on its surrogate.

    Args:
        bench: the model under test.
        attack: with a surrogate.
        y: (R,) int64 labels of the examples.
        options: of `Meter`.
    """
    assert attack.surrogate is not None
    other = load_surrogate(bench, attack.surrogate)
    meter = meter_of(other, y, attack.threat.precision, **options)
    method = Transferred(registry.make("attack", attack.attack, attack.fields))
    seen = ClassifierView(other.expect(meter), torch.arange(len(y)))
    return Elsewhere(method, seen, lambda: Passes(int(meter.forwards.sum()), int(meter.backwards.sum())))
