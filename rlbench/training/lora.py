"""Low-rank updates (LoRA) of a tower's attention, instead of training the whole tower; of video, only over time.

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
TEMPORAL = "temporal_attn"  # if a tower has these layers, LanguageBind updates only them
ALPHA = 16  # LanguageBind's at every rank; updates are scaled by ALPHA / rank


def inject(tower: nn.Module, rank: int, *, seed: int, name: str) -> None:
    """Adds trainable low-rank updates to the attention's linear layers; all other weights are frozen.

    Args:
        tower: changed in place.
        rank: the rank of the updates.
        seed: the seed of the updates' random start.
        name: the backbone, for the error message.

    Raises:
        FieldError: The tower has no such layers.
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
    """Within the block, the tower is as before `inject`, with the updates added to its weights; then it is restored."""
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
