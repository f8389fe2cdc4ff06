"""A CLIP's towers as the configs and weights of transformers and of open_clip.

Both libraries have the same architecture under other names; open_clip stores the three projections of an attention as
one matrix, and its two projections into the common space transposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip.fronts import MEAN, STD
from rlbench.encoders.clip.towers import TextSizes, TextTower, VisionSizes, VisionTower

_VOCABULARY = 49408  # of CLIP's own tokenizer, which open_clip contains
_PARTS = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_PARTS |= {"self_attn.out_proj": "attn.out_proj"}
_TOPS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}


def check_stock(vision: VisionSizes, text: TextSizes) -> None:
    """Raises: CheckpointError: the towers have parts that the CLIP of transformers or of open_clip does not have."""
    same = vision.activation == text.activation and vision.activation in ("gelu", "quick_gelu")
    reasons = {
        "attention over the frames of a video": bool(vision.clip),
        f"inputs of {vision.height} x {vision.width}, which are not square": vision.height != vision.width,
        f"{vision.channels} input channels": vision.channels != 3,
        f"the activations {vision.activation} and {text.activation}": not same,
    }
    if found := [what for what, wrong in reasons.items() if wrong]:
        raise CheckpointError(
            f"the tower has {found[0]}; the CLIPs of transformers and open_clip do not, so it can't be "
            "published for them: publish the run folder itself, which rlbench reads"
        )


def transformers_weights(vision: VisionTower, text: TextTower, logit_scale: float) -> dict[str, Tensor]:
    """The float32 weights of a CLIPModel; `logit_scale` is the factor of the cosine, not its logarithm."""
    found = {**vision.state_dict(), **text.state_dict(), "logit_scale": torch.tensor(math.log(logit_scale))}
    return {name: value.detach().float().cpu().contiguous() for name, value in found.items()}


def open_clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an open_clip CLIP from those of a CLIPModel (see `transformers_weights`)."""
    found = {_TOPS[name]: value for name, value in weights.items() if name in _TOPS}
    found["visual.proj"] = weights["visual_projection.weight"].T.contiguous()
    found["text_projection"] = weights["text_projection.weight"].T.contiguous()
    for name, value in weights.items():
        model, layers, rest = name.partition(".encoder.layers.")
        if not layers:
            continue
        number, _, leaf = rest.partition(".")
        part, _, kind = leaf.rpartition(".")
        block = f"{'visual.' if model == 'vision_model' else ''}transformer.resblocks.{number}"
        if part in _PARTS:
            found[f"{block}.{_PARTS[part]}.{kind}"] = value
        elif part == "self_attn.q_proj":
            own = [weights[name.replace("q_proj", one)] for one in ("q_proj", "k_proj", "v_proj")]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(own)
    return found


def transformers_config(vision: VisionSizes, text: TextSizes, *, begin: int, end: int, pad: int) -> dict[str, Any]:
    """The config.json of a CLIPModel.

    Args:
        vision: the sizes of the visual tower.
        text: the sizes of the text tower.
        begin: the token that begins a text.
        end: the token that ends it, whose feature is taken.
        pad: the token that pads it.
    """
    last = end if end == text.vocabulary - 1 else 2  # for 2, transformers takes the highest id, as the text tower does
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision.projection,
        "dtype": "float32",
        "vision_config": {
            **_tower(vision),
            "image_size": vision.height,
            "patch_size": vision.patch,
            "num_channels": 3,
            "model_type": "clip_vision_model",
        },
        "text_config": {
            **_tower(text),
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.positions,
            "bos_token_id": begin,
            "eos_token_id": last,
            "pad_token_id": pad,
            "model_type": "clip_text_model",
        },
    }


def _tower(sizes: VisionSizes | TextSizes) -> dict[str, Any]:
    return {
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "projection_dim": sizes.projection,
        "hidden_act": sizes.activation,
        "layer_norm_eps": sizes.eps,
    }


def processor_config(side: int) -> dict[str, Any]:
    """The preprocessor_config.json of a CLIP for square images of that side, in pixels."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def open_clip_config(vision: VisionSizes, text: TextSizes, repo: str) -> dict[str, Any]:
    """The open_clip_config.json of a CLIP.

    Args:
        vision: the sizes of the visual tower.
        text: the sizes of the text tower.
        repo: the repository that will hold it, from which open_clip takes a tokenizer other than CLIP's own.
    """
    tokenizer = {} if text.vocabulary == _VOCABULARY else {"hf_tokenizer_name": repo}
    model = {
        "embed_dim": vision.projection,
        "quick_gelu": vision.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.height,
            "patch_size": vision.patch,
            "layers": vision.layers,
            "width": vision.hidden,
            "head_width": vision.hidden // vision.heads,
            "mlp_ratio": _ratio(vision),
            "norm_kwargs": {"eps": vision.eps},
        },
        "text_cfg": {
            "context_length": text.positions,
            "vocab_size": text.vocabulary,
            "width": text.hidden,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": _ratio(text),
            "norm_kwargs": {"eps": text.eps},
            **tokenizer,
        },
    }
    image = {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": model, "preprocess_cfg": image}


def _ratio(sizes: VisionSizes | TextSizes) -> float:
    """The ratio that open_clip multiplies the width with, rounding down, to get the width of the MLPs."""
    ratio = sizes.mlp / sizes.hidden
    return ratio if int(sizes.hidden * ratio) == sizes.mlp else math.nextafter(ratio, math.inf)
