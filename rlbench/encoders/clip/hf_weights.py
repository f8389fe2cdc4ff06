"""A folder's config.json and weights -> a model of transformers; no code of theirs is run, no size believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ClapModel, CLIPModel, SiglipModel

from rlbench.core.errors import CheckpointError, first_line
from rlbench.encoders import hub
from rlbench.encoders.clip.hf_quiet import quiet
from rlbench.encoders.clip.weights import check_no_code, read_tensors

MODELS = {"clip": CLIPModel, "siglip": SiglipModel, "clap": ClapModel}
_BUFFERS = ("position_ids", "relative_position_index", "num_batches_tracked")  # that no one learns
_SPECTROGRAM = 4096  # pixels of a side, of CLAP's: its weights do not tell


def load_model(folder: Path, kind: str, said: Mapping[str, Any]) -> nn.Module:
    """The towers in float32, frozen, in eval mode.

    Args:
        folder: of the checkpoint.
        kind: of MODELS.
        said: its config.json.

    Raises: CheckpointError: a tensor is missing, left over or wrong, or the config describes no such model.
    """
    path = hub.weights_file(folder)
    weights = {
        name: value.float() if value.is_floating_point() else value for name, value in read_tensors(path).items()
    }
    with quiet():
        try:
            config = _config(kind, said, weights, folder)
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
        except Exception as error:  # what transformers makes of any config.json
            about = f"{folder / 'config.json'} describes no {kind} that transformers can make"
            raise CheckpointError(f"{about}: {first_line(error)}") from error
    said = {"missing_keys": "lacks", "unexpected_keys": "has no place for", "mismatched_keys": "has of another shape"}
    for key, what in said.items():
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in info[key])
        wrong = [name for name in names if not name.endswith(_BUFFERS)]
        if wrong:
            raise CheckpointError(f"{path} {what} {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}")
    return model.float().eval().requires_grad_(False)  # type: ignore[no-any-return]


def _config(kind: str, said: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> Any:
    """The config as transformers reads it, of a model that is no larger than its weights. Raises: CheckpointError."""
    about = folder / "config.json"
    check_no_code(about)
    if said.get("quantization_config"):
        raise CheckpointError(f"{about} has a quantization_config: quantised weights can't be used")
    config = MODELS[kind].config_class.from_dict(dict(said))  # type: ignore[attr-defined]
    parts = [getattr(config, f"{part}_config", None) for part in ("text", "vision", "audio")]
    layers = sum(getattr(part, "num_hidden_layers", 0) for part in parts) + sum(getattr(parts[2], "depths", ()))
    side = getattr(parts[2], "spec_size", 0)
    if layers > len(weights) or side > _SPECTROGRAM:
        wrong = f"spec_size {side}" if side > _SPECTROGRAM else f"{layers} layers"
        raise CheckpointError(f"{about} says {wrong}, which the weights' {len(weights)} tensors can't be")
    with torch.device("meta"):
        model = MODELS[kind](config)
    values = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    held = sum(value.numel() for value in weights.values())
    if values > 2 * held + 10**6:
        raise CheckpointError(f"{about} describes {values} numbers; the weights are {held}")
    return config
