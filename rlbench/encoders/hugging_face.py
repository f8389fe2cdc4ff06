"""CLIP, SigLIP, SigLIP 2 and CLAP of the library transformers, and LanguageBind, by a hub id or a folder.

CLIP: Radford et al., 2021, https://arxiv.org/abs/2103.00020. SigLIP: Zhai et al., 2023,
https://arxiv.org/abs/2303.15343. SigLIP 2: Tschannen et al., 2025, https://arxiv.org/abs/2502.14786. CLAP: Wu et al.,
2022, https://arxiv.org/abs/2211.06687.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Box, Modality, Trait
from rlbench.core.errors import CheckpointError, FieldError, ModalityError, first_line
from rlbench.core.registry import register
from rlbench.encoders import hub
from rlbench.encoders.clip.adapter import Adapter, is_adapter, read_adapter
from rlbench.encoders.clip.clap_front import ClapWaveform
from rlbench.encoders.clip.fronts import Front, Patches
from rlbench.encoders.clip.hf_processor import audio_front, image_front, patches_front
from rlbench.encoders.clip.hf_quiet import quiet
from rlbench.encoders.clip.hf_tokens import Tokens
from rlbench.encoders.clip.hf_weights import MODELS, load_model
from rlbench.encoders.clip.sizes import read_modality
from rlbench.encoders.clip.weights import read_config, sha256_of
from rlbench.encoders.languagebind import LanguageBind, languagebind

_IMAGEBIND = (
    "transformers has no ImageBind; download https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth "
    "and give --model imagebind:./imagebind_huge.pth"
)
# LEAF (Abad Rocamora et al., 2025, https://arxiv.org/abs/2506.03355) publishes weights and a config. Its README takes
# tokenizer and processor of the CLIP that each was fine-tuned from; all have one vocabulary and one normalisation.
_PREPARED_AS = {"LEAF-CLIP": ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")}
_BATCH = 256  # prompts per call
_PROBES = ("a photo", "a photo of a dog and a cat in the rain")
_ROUNDING = 1e-3


class HuggingFace(nn.Module):
    """A pair of towers of transformers as an Encoder of one modality.

    Zero-shot logits are `logit_scale * cos`. SigLIP adds the same `logit_bias` to all of them; argmax, margin and
    softmax ignore it, so it is left out. Its own probabilities are sigmoid(logit_scale * cos + logit_bias).

    Attributes:
        logit_scale: learned by the checkpoint.
        logit_bias: learned by SigLIP; 0 for the others.
    """

    traits: frozenset[Trait] = frozenset()

    def __init__(self, model: nn.Module, front: Front, tokens: Tokens, sha256: str) -> None:
        super().__init__()
        self.model, self.front, self.tokens = model, front, tokens
        self.modality: Modality = "audio" if isinstance(front, ClapWaveform) else "image"
        scale = getattr(model, "logit_scale_a" if self.modality == "audio" else "logit_scale")
        self.logit_scale = float(scale.exp())
        self.logit_bias = float(getattr(model, "logit_bias", 0.0))
        self._sha256 = sha256

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {self.modality: self.front.box}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {self.modality: self._sha256}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        if modality != self.modality:
            raise ModalityError(f"this encoder has no {modality}; it has {self.modality}")
        if modality == "audio":
            longer = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
            return _unit(self.model.get_audio_features(self.front(x), is_longer=longer))  # type: ignore[operator]
        given = self.front.arguments(x) if isinstance(self.front, Patches) else {"pixel_values": self.front(x)}
        return _unit(self.model.get_image_features(**given))  # type: ignore[operator]

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        if not prompts:
            return self.embed_text([""])[:0]
        device, rows = next(self.model.parameters()).device, []
        with torch.no_grad():
            for start in range(0, len(prompts), _BATCH):
                ids = {name: t.to(device) for name, t in self.tokens(prompts[start : start + _BATCH]).items()}
                rows.append(_unit(self.model.get_text_features(**ids)))  # type: ignore[operator]
        return torch.cat(rows)


def _unit(features: Any) -> Tensor:
    """Unit rows of what `get_..._features` returns: a tensor, or, since transformers 5, an object with one."""
    return normalize(getattr(features, "pooler_output", features).float(), dim=-1)


def _check(encoder: HuggingFace, folder: Path) -> None:
    """Raises: CheckpointError: it fails, its outputs are not finite, or a longer prompt changes a shorter one."""
    (box,) = encoder.boxes.values()
    x = torch.linspace(0.4, 0.6, prod(box.shape)).view(1, *box.shape)
    try:
        with torch.no_grad(), quiet():
            found = [encoder.embed(x, encoder.modality), encoder.embed_text(_PROBES)]
            alone = _unit(encoder.model.get_text_features(**encoder.tokens(_PROBES[:1], "do_not_pad")))  # type: ignore[operator]
    except CheckpointError:
        raise
    except Exception as error:  # a model made from an arbitrary config.json may raise anything
        raise CheckpointError(f"{folder}: its model fails: {first_line(error)}") from error
    if not all(bool(one.isfinite().all()) for one in found) or not isfinite(encoder.logit_scale):
        raise CheckpointError(f"{folder}: its model returns values that are not finite")
    if found[0].shape[1] != found[1].shape[1]:
        raise CheckpointError(
            f"{folder} embeds {encoder.modality} in {found[0].shape[1]} values, but text in {found[1].shape[1]}"
        )
    masked = not type(encoder.model).__name__.startswith("Siglip")  # SigLIP was trained with padding, without a mask
    if masked and (alone - found[1][:1]).abs().max() > _ROUNDING:
        raise CheckpointError(
            f"{folder}: a prompt gets another embedding next to a longer one: padding is on the left or not masked; "
            "set padding_side and pad_token in tokenizer_config.json"
        )


def _find_preparation(folder: Path) -> Path:
    """The folder of a checkpoint's tokenizer and processor: its own, or that of the CLIP that its authors name."""
    snapshot = hub.name_of_snapshot(folder)
    owner = snapshot[0].partition("/")[0] if snapshot else ""
    if owner not in _PREPARED_AS or hub.PREPARATION.is_whole(folder):
        return folder
    return hub.fetch(*_PREPARED_AS[owner], (hub.PREPARATION,))


def _checksum(folder: Path, adapter: Adapter | None) -> str:
    """The checksum of the weights, and of an adapter on them."""
    found = sha256_of(hub.weights_file(folder))
    if adapter is None:
        return found
    return hashlib.sha256(f"{found} {sha256_of(adapter.path)} {adapter.scale!r}".encode()).hexdigest()


@register("encoder", "hf:ID")
def hugging_face(*, source: str, seconds: float | None = None) -> HuggingFace | LanguageBind:
    """Any CLIP, SigLIP, CLAP or LanguageBind of the hub, such as hf:openai/clip-vit-base-patch32, or hf:./FOLDER.

    Args:
        source: a repository, with `@REVISION` to pin it, or a folder that begins with `/`, `.` or `~`. A repository
            with a LoRA adapter names the repository and revision of its base model, which is fetched, too.
        seconds: length of CLAP's waveforms (default: the longest that it takes).

    Raises:
        CheckpointError: a file is missing or faulty, the hub can't be reached, or it is another kind of model.
        FieldError: seconds is too long, or the model is not a CLAP.
    """
    if "imagebind" in source.lower() and not hub.is_folder(source):
        raise CheckpointError(f"{source}: {_IMAGEBIND}")
    folder = hub.folder_of(source, hub.TRANSFORMERS, hub.ADAPTER)
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}, which should hold a checkpoint")
    adapter = read_adapter(folder) if is_adapter(folder) else None
    if adapter is not None:
        at = f"@{adapter.revision}" if adapter.revision else ""
        folder = hub.folder_of(f"{adapter.base}{at}")
    raw_config = read_config(folder)
    modality, kind = read_modality(raw_config), str(raw_config.get("model_type"))
    if modality is not None and adapter is None:
        return languagebind(files={modality: folder}, seconds=seconds)
    if kind not in MODELS:
        raise CheckpointError(f"{source} is a model of type {kind!r}; hf: takes {', '.join(MODELS)} and LanguageBind")
    if seconds is not None and kind != "clap":
        raise FieldError(f"{source} is a {kind}; only clap takes seconds")
    model = load_model(folder, kind, raw_config, adapter)
    config: Any = model.config
    inputs = _find_preparation(folder)
    tokens = Tokens(inputs, kind, config.text_config)
    front: Front
    if kind == "clap":
        front = audio_front(inputs, config.audio_config, seconds)
    elif kind == "siglip2":
        front = patches_front(inputs, config.vision_config)
    else:
        front = image_front(inputs, kind, config.vision_config)
    encoder = HuggingFace(model, front, tokens, _checksum(folder, adapter)).eval().requires_grad_(False)
    _check(encoder, folder)
    return encoder
