"""Contracts of everything installed: each model, and each task that needs no data."""

import inspect

import pytest
import torch

from rlbench.core import registry
from rlbench.core.errors import RLBenchError
from rlbench.encoders import models
from rlbench.encoders.loading import check_frozen

MODELS = [  # without those of the hub, which need the network
    (model.name, modality)
    for model in models.models()
    for modality in model.modalities
    if not (modality in model.weights and model.weights[modality].hub)
]
TASKS = [
    name
    for name in registry.names("task")
    if all(p.default is not p.empty for p in inspect.signature(registry.factory("task", name)).parameters.values())
    and "root" not in inspect.signature(registry.factory("task", name)).parameters
]


@pytest.mark.parametrize(("name", "modality"), MODELS)
def test_an_encoder_keeps_its_contract(name, modality) -> None:
    encoder = models.load_encoder(name, modality)
    check_frozen(encoder, name)
    box = encoder.boxes[modality]
    x = box.low + (box.high - box.low) * torch.rand(3, *box.shape, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    embedded = encoder.embed(x, modality)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(3), atol=1e-5)
    (gradient,) = torch.autograd.grad(embedded[:, 0].sum(), x)
    assert torch.isfinite(gradient).all() and (gradient.flatten(1) != 0).any(1).all()
    alone = torch.cat([encoder.embed(row[None], modality) for row in x])
    assert torch.allclose(alone, embedded, atol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_keeps_its_contract(name) -> None:
    task = registry.make("task", name)
    box = next(
        b for n, m in MODELS if m == task.modality and (b := models.load_encoder(n, m).boxes[m]) and _renders(task, b)
    )
    whole, prefix = task.load(box, 0, 24), task.load(box, 0, 10)
    assert whole.x.shape == (24, *box.shape) and whole.x.dtype == torch.float32
    assert whole.x.min() >= box.low and whole.x.max() <= box.high
    assert torch.equal(whole.x[:10], prefix.x) and whole.ids[:10] == prefix.ids
    assert torch.equal(task.load(box, 10, 24).x, whole.x[10:])
    assert len(set(whole.ids)) == 24 and set(whole.y.tolist()) <= set(range(len(task.classes)))
    others = [task.load(box, 0, 24, split) for split in ("train", "val")]
    assert not any(set(other.ids) & set(whole.ids) or torch.equal(other.x, whole.x) for other in others)
    assert task.fingerprint() == registry.make("task", name).fingerprint()


def _renders(task, box) -> bool:
    try:
        return len(task.load(box, 0, 1).x) == 1
    except RLBenchError:
        return False
