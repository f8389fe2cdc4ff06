"""Any pair of towers of the library open_clip, by architecture and tag, from the hub, or from a folder.

OpenCLIP: Ilharco et al., 2021, https://doi.org/10.5281/zenodo.5143773. On the hub are, among others, the robust CLIP
towers of FARE (Schlarmann et al., 2024, https://arxiv.org/abs/2402.12336): hf-hub:chs20/fare2-clip, fare4-clip, and
TeCoA's in the same training: tecoa2-clip, tecoa4-clip.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench import hub
from rlbench.core import Box, Modality, Trait
from rlbench.documents import expand_user
from rlbench.encoders.clip_fronts import Pixels
from rlbench.encoders.clip_weights import sha256_of
from rlbench.errors import CheckpointError, ModalityError, RLBenchError, UnknownName, first_line
from rlbench.registry import register

_DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, pickle.UnpicklingError, EOFError)
_BATCH = 256  # prompts at a time


class OpenClip(nn.Module):
    """A pair of towers of open_clip as an Encoder of images.

    Zero-shot logits are `logit_scale * cos`; `logit_bias` of a SigLIP, which is the same for all of them, is left out.
    """

    traits: frozenset[Trait] = frozenset()

    def __init__(self, model: nn.Module, tokens: Callable[[list[str]], Tensor], sha256: str) -> None:
        super().__init__()
        from open_clip import get_model_preprocess_cfg

        said: Any = get_model_preprocess_cfg(model)
        size = said["size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.front = Pixels(Box(shape=(3, height, width)), said["mean"], said["std"])
        self.model, self.tokens = model, tokens
        self.logit_scale = float(cast(Tensor, model.logit_scale).exp())
        bias = cast("Tensor | None", getattr(model, "logit_bias", None))
        self.logit_bias = 0.0 if bias is None else float(bias)
        self._sha256 = sha256

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {"image": self.front.box}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {"image": self._sha256}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D), unit norm."""
        if modality != "image":
            raise ModalityError(f"this encoder has no {modality}; it has image")
        return normalize(self.model.encode_image(self.front(x)), dim=-1)  # type: ignore[operator]

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        if not prompts:
            return self.embed_text([""])[:0]
        device, rows = self.front.mean.device, []
        with torch.no_grad():
            for start in range(0, len(prompts), _BATCH):
                ids = self.tokens(list(prompts[start : start + _BATCH])).to(device)
                rows.append(normalize(self.model.encode_text(ids), dim=-1))  # type: ignore[operator]
        return torch.cat(rows)


def _library() -> Any:
    """The library. Raises: RLBenchError: it is not installed, or does not fit to torch."""
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # torchvision of another build than torch raises a RuntimeError
        raise RLBenchError(
            f"open_clip can't be imported ({first_line(error)}); run: pip install 'rlbind-bench[open-clip]', "
            "with torch and torchvision from one index"
        ) from error
    return open_clip


def _tagged(library: Any, source: str) -> tuple[str, dict[str, Any], Path]:
    """ARCH/TAG -> the name, arguments and weights of a model in open_clip's list. Raises: UnknownName."""
    arch, _, tag = source.rpartition("/")
    arch = arch.replace("/", "-")
    if arch not in library.list_models():
        raise UnknownName("open_clip architecture", arch, library.list_models())
    if tag not in library.list_pretrained_tags_by_model(arch):
        raise UnknownName(f"tag of open_clip's {arch}", tag, library.list_pretrained_tags_by_model(arch))
    config = library.get_pretrained_cfg(arch, tag)
    # open_clip only warns where an architecture has another activation than the weights were trained with.
    return (
        arch,
        {"pretrained": tag, "force_quick_gelu": bool(config.get("quick_gelu"))},
        library.download_pretrained(config),
    )


@register("encoder", "open_clip:ARCH/TAG")
def open_clip(*, source: str) -> OpenClip:
    """Any model of open_clip: open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:hf-hub:chs20/fare2-clip, or of a folder.

    Args:
        source: an architecture and tag of open_clip's list; `hf-hub:` with a repository, and `@REVISION` if it is to be
            pinned; `local-dir:` with a folder as the hub has it.

    Raises:
        CheckpointError: a file is missing or faulty, or the hub can't be reached. UnknownName: an architecture or tag.
        RLBenchError: open_clip is not installed.
    """
    library, arguments = _library(), dict[str, Any]()
    scheme, _, rest = source.partition(":")
    try:
        if scheme in ("hf-hub", "local-dir"):
            folder = expand_user(rest) if scheme == "local-dir" else hub.folder_of(rest, hub.OPEN_CLIP)
            name, path = f"local-dir:{folder}", hub.weights_file(folder, hub.OPEN_CLIP)
        else:
            name, arguments, path = _tagged(library, source)
        model = library.create_model(name, require_pretrained=True, **arguments)
        tokens = library.get_tokenizer(name)
    except _DAMAGED as error:
        raise CheckpointError(f"open_clip can't load {source}: {first_line(error)}") from error
    for key, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds values that are not finite: {key}")
    return OpenClip(model.eval().requires_grad_(False), tokens, sha256_of(Path(path))).eval()
