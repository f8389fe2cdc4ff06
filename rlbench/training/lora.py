"""Low-rank updates of a tower's attention, in place of tuning all of it; of a video tower, over time alone.

LoRA: Hu et al., 2021, https://arxiv.org/abs/2106.09685, by the library peft. LanguageBind: Zhu et al., 2023,
https://arxiv.org/abs/2310.01852.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from rlbench.core.errors import FieldError

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj", "qkv", "out")  # names of CLIP's and of the mini towers' layers
TEMPORAL = "temporal_attn"  # where a tower has it, the published updates are there and nowhere else
ALPHA = 16  # LanguageBind's at every rank, so that updates are scaled by 16 / rank


def inject(tower: nn.Module, rank: int, *, seed: int, name: str) -> None:
    """Gives the attention's linear layers updates of a rank, drawn from `seed`; they alone are trained.

    Raises:
        FieldError: the tower, of backbone `name`, has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [path for path, module in tower.named_modules() if isinstance(module, nn.Linear)]
    attention = [path for path in linear if path.rsplit(".", 1)[-1] in ATTENTION]
    targets = [path for path in attention if f".{TEMPORAL}." in path] or attention
    if not targets:
        raise FieldError(f"recipe: lora needs attention layers ({', '.join(ATTENTION)}); {name} has none, leave it out")
    config = LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, tower)


@contextmanager
def merge(tower: nn.Module) -> Iterator[None]:
    """The tower as it was before `inject`, with the updates added to its weights; afterwards exactly as it is now."""
    from peft.tuners.lora import Linear

    layers = [
        (tower.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], module)
        for path, module in tower.named_modules()
        if isinstance(module, Linear)
    ]
    own = []
    for parent, name, layer in layers:
        base = cast(nn.Linear, layer.get_base_layer())
        own.append(base.weight.data)
        base.weight.data = base.weight.data + layer.get_delta_weight("default").to(base.weight)
        setattr(parent, name, base)
    try:
        yield
    finally:
        for (parent, name, layer), weight in zip(layers, own, strict=True):
            layer.get_base_layer().weight.data = weight
            setattr(parent, name, layer)
