"""A published LanguageBind checkpoint -> its two towers; no tensor may be missing or left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip.sizes import Tensors, read_modality, text_sizes, vision_sizes
from rlbench.encoders.clip.towers import (
    Attention,
    TextSizes,
    TextTower,
    VisionSizes,
    VisionTower,
    shapes,
    text_tower,
    vision_tower,
)
from rlbench.encoders.clip.weights import fold, read_config, read_weights, separate_lora, sha256_of
from rlbench.encoders.hub import weights_file

_VISION, _TEXT = ("vision_model.", "visual_projection."), ("text_model.", "text_projection.")
_PATCHES = "vision_model.embeddings.patch_embedding.weight"


class Checkpoint(nn.Module):
    """The towers of a checkpoint, frozen, in evaluation mode.

    Attributes:
        vision: the visual tower.
        text: the text tower.
        modality: the modality in config.json; None if there is none.
        logit_scale: the learned factor in `logit_scale * cos`.
        sha256: the checksum of the file of weights.
    """

    def __init__(
        self, vision: VisionTower, text: TextTower, *, modality: Modality | None, logit_scale: float, sha256: str
    ) -> None:
        super().__init__()
        self.vision, self.text = vision, text
        self.modality, self.logit_scale, self.sha256 = modality, logit_scale, sha256

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, [T,] H, W), normalised -> (B, D), not normalised."""
        return cast(Tensor, self.vision(pixel_values))

    def text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(P, L) ids, and a mask that is 0 at padding -> (P, D), not normalised."""
        return cast(Tensor, self.text(input_ids, attention_mask))


def load_checkpoint(
    folder: Path | str, *, modality: Modality | None = None, attention: Attention = "sdpa"
) -> Checkpoint:
    """The towers of a checkpoint's folder: config.json, and model.safetensors or pytorch_model.bin.

    Args:
        folder: laid out as on the hub; in a video tower, LoRA applies only to the attention over time.
        modality: what the checkpoint must be for, if it says so.
        attention: transformers' implementation.

    Raises:
        CheckpointError: a file or tensor is missing, left over, truncated, of a wrong shape or not finite; the config
            contradicts the tensors; or the checkpoint is for another modality.
    """
    path, config = weights_file(Path(folder)), read_config(Path(folder))
    source, about = str(path), str(path.with_name("config.json"))
    found = read_modality(config)
    if modality and found and modality != found:
        raise CheckpointError(f"{folder} is a checkpoint for {found}; {modality} was requested")
    weights, factors = separate_lora(read_weights(path), source)
    tensors = Tensors(weights, source)
    vision, alpha = vision_sizes(tensors, config, next((pair.rank for pair in factors.values()), 0), about)
    text = text_sizes(tensors, config, about)
    tensors.shape("logit_scale", 0)
    if vision.projection != text.projection:
        sizes = f"{vision.projection} values of visual_projection and {text.projection} of text_projection"
        raise CheckpointError(f"{source} has {sizes}; the numbers must be equal")
    fold(weights, factors, alpha)
    if weights[_PATCHES].dim() == 5:
        weights[_PATCHES] = weights[_PATCHES][:, :, 0]  # a convolution over one frame at a time
    _check(weights, vision, text, source)
    return Checkpoint(
        vision_tower(_part(weights, _VISION), vision, attention),
        text_tower(_part(weights, _TEXT), text, attention),
        modality=found,
        logit_scale=float(weights["logit_scale"].exp()),
        sha256=sha256_of(path),
    ).eval()


def _part(weights: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if name.startswith(prefixes)}


def _check(weights: Mapping[str, Tensor], vision: VisionSizes, text: TextSizes, source: str) -> None:
    """Raises: CheckpointError: the first few tensors that are missing, left over, or of a wrong shape."""
    expected = {**shapes(vision), **shapes(text), "logit_scale": weights["logit_scale"].shape}
    wrong = [f"lacks {name}" for name in expected if name not in weights]
    wrong += [f"has {name}, which is not part of it" for name in weights if name not in expected]
    wrong += [
        f"has {name} of shape {tuple(weights[name].shape)}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{source} {'; '.join(wrong[:3])}{more}")
