"""A folder's config.json and weights -> a model of transformers; runs no code from the folder and checks all sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import ClapModel, CLIPModel, SiglipModel

from rlbench.core.errors import CheckpointError, first_line
from rlbench.encoders import hub
from rlbench.encoders.clip.adapter import Adapter, add_adapter
from rlbench.encoders.clip.hf_quiet import quiet
from rlbench.encoders.clip.weights import check_no_code, read_tensors

MODELS = {"clip": CLIPModel, "siglip": SiglipModel, "clap": ClapModel}
if hasattr(transformers, "Siglip2Model"):  # since transformers 4.49
    MODELS["siglip2"] = transformers.Siglip2Model
_BUFFERS = ("position_ids", "relative_position_index", "num_batches_tracked")  # which are not learned
_SPECTROGRAM = 4096  # pixels per side for CLAP, whose weights do not show it


def load_model(folder: Path, kind: str, raw_config: Mapping[str, Any], adapter: Adapter | None = None) -> nn.Module:
    """The towers in float32, frozen, in evaluation mode.

    Args:
        folder: the folder of the checkpoint.
        kind: a key of MODELS.
        raw_config: the contents of its config.json.
        adapter: a LoRA that is added to the weights.

    Raises: CheckpointError: a tensor is missing, left over or wrong, or the config describes no such model.
    """
    path = hub.weights_file(folder)
    weights = {
        name: value.float() if value.is_floating_point() else value for name, value in read_tensors(path).items()
    }
    if adapter is not None:
        add_adapter(weights, adapter)
    with quiet():
        try:
            config = _config(kind, raw_config, weights, folder)
            model, info = MODELS[kind].from_pretrained(  # type: ignore[attr-defined]
                None,
                config=config,
                state_dict=weights,
                torch_dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except CheckpointError:
            raise
        except Exception as error:  # transformers may raise anything for an arbitrary config.json
            about = f"{folder / 'config.json'} does not describe a {kind} that transformers can make"
            raise CheckpointError(f"{about}: {first_line(error)}") from error
    verbs = {
        "missing_keys": "lacks",
        "unexpected_keys": "has no place for",
        "mismatched_keys": "has with another shape",
    }
    for key, verb in verbs.items():
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in info[key])
        wrong = [name for name in names if not name.endswith(_BUFFERS)]
        if wrong:
            raise CheckpointError(f"{path} {verb} {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}")
    return model.float().eval().requires_grad_(False)  # type: ignore[no-any-return]


def _config(kind: str, raw_config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> Any:
    """The config as transformers reads it. Raises: CheckpointError: it describes a larger model than the weights."""
    about = folder / "config.json"
    check_no_code(about)
    if raw_config.get("quantization_config"):
        raise CheckpointError(f"{about} has a quantization_config: quantised weights can't be used")
    config = MODELS[kind].config_class.from_dict(dict(raw_config))  # type: ignore[attr-defined]
    parts = [getattr(config, f"{part}_config", None) for part in ("text", "vision", "audio")]
    layers = sum(getattr(part, "num_hidden_layers", 0) for part in parts) + sum(getattr(parts[2], "depths", ()))
    side = getattr(parts[2], "spec_size", 0)
    if layers > len(weights) or side > _SPECTROGRAM:
        wrong = f"spec_size {side}" if side > _SPECTROGRAM else f"{layers} layers"
        raise CheckpointError(f"{about} says {wrong}, but the weights are only {len(weights)} tensors")
    with torch.device("meta"):
        model = MODELS[kind](config)
    values = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    held = sum(value.numel() for value in weights.values())
    if values > 2 * held + 10**6:
        raise CheckpointError(f"{about} describes {values} values; the weights are {held}")
    return config
