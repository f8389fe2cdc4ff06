"""Models of the library open_clip, by architecture and tag, from the hub, or from a folder.

OpenCLIP: Ilharco et al., 2021, https://doi.org/10.5281/zenodo.5143773. Among others, the hub has the robust CLIP
towers of FARE (Schlarmann et al., 2024, https://arxiv.org/abs/2402.12336): hf-hub:chs20/fare2-clip, fare4-clip, and
those of TeCoA in the same training: tecoa2-clip, tecoa4-clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Modality, Trait
from rlbench.core.box import Box, Filter, Fit, Resize
from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, ModalityError, RLBenchError, UnknownName, first_line
from rlbench.core.registry import register
from rlbench.encoders import hub
from rlbench.encoders.clip.fronts import Pixels
from rlbench.encoders.clip.weights import check_no_code, read_json, read_tensors, sha256_of

_BATCH = 256  # prompts per call
_LARGEST = 2**15  # pixels per side
_RESIZES: Mapping[str, Resize] = {"shortest": "short", "longest": "contain", "squash": "squash"}
_FILTERS: Mapping[str, Filter] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
_TOKENIZER = (
    "clean",
    "strip_sep_token",
    "language",
    "additional_special_tokens",
)  # other options run code, read files or are random


class OpenClip(nn.Module):
    """A pair of towers of open_clip as an Encoder of images.

    Zero-shot logits are `logit_scale * cos`; a SigLIP's `logit_bias`, which is the same for all of them, is left out.
    """

    traits: frozenset[Trait] = frozenset()

    def __init__(self, model: nn.Module, tokens: Callable[[list[str]], Tensor], sha256: str) -> None:
        super().__init__()
        from open_clip import get_model_preprocess_cfg

        self.front = make_front(get_model_preprocess_cfg(model))
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
        return normalize(self.model.encode_image(self.front(x)).float(), dim=-1)  # type: ignore[operator]

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


def make_front(config: Mapping[str, Any]) -> Pixels:
    """The front that prepares images as open_clip does. Raises: CheckpointError: a field is not supported."""
    if config.get("mode", "RGB") != "RGB":
        raise CheckpointError(f"preprocess_cfg: mode is {config['mode']!r}, which is not supported; it must be RGB")
    size, fill = config["size"], config.get("fill_color", 0)
    sides = [size] * 2 if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side <= _LARGEST for side in sides):
        raise CheckpointError(f"preprocess_cfg: size is {size!r}; it must be one or two sides in pixels")
    if isinstance(fill, bool) or not isinstance(fill, int) or not 0 <= fill <= 255:
        raise CheckpointError(
            f"preprocess_cfg: fill_color is {fill!r}, which is not supported; it must be from 0 to 255"
        )
    mode, way = config.get("resize_mode") or "shortest", config.get("interpolation") or "bicubic"
    if mode not in _RESIZES or way not in _FILTERS:
        wrong = f"resize_mode is {mode!r}" if mode not in _RESIZES else f"interpolation is {way!r}"
        raise CheckpointError(f"preprocess_cfg: {wrong}, which is not supported")
    uneven = mode == "shortest" and sides[0] != sides[1]  # open_clip then resizes in another way, always bicubic
    fit = Fit(
        resize="cover" if uneven else _RESIZES[mode],
        size=(sides[0], sides[1]),
        filter="bicubic" if uneven else _FILTERS[way],
        centre="even",
        fill=fill if mode == "longest" else 0,
    )
    mean, std = (_channels(config, name) for name in ("mean", "std"))
    if not all(std):
        raise CheckpointError(f"preprocess_cfg: std is {config['std']!r}; it must not hold 0")
    return Pixels(Box(shape=(3, *sides), fit=fit), mean, std)


def _channels(config: Mapping[str, Any], name: str) -> list[float]:
    found = config[name] if isinstance(config[name], list | tuple) else [config[name]] * 3
    if len(found) != 3 or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in found):
        raise CheckpointError(f"preprocess_cfg: {name} is {config[name]!r}; it must be three numbers")
    return [float(value) for value in found]


def _check_folder(folder: Path, library: Any) -> Path:
    """Checks a folder before open_clip, which trusts its files, loads it; returns the path of its weights.

    Raises:
        CheckpointError: a file is missing or faulty, or the config asks for code, for an unsupported option of the
            tokenizer, or for a larger model than its weights.
    """
    path, about = hub.weights_file(folder, hub.OPEN_CLIP), folder / hub.OPEN_CLIP.config
    config = read_json(about).get("model_cfg")
    parts = [config.get(part) for part in ("text_cfg", "vision_cfg")] if isinstance(config, dict) else []
    towers = [part for part in parts if isinstance(part, dict)]
    if not isinstance(config, dict) or len(towers) < 2:
        raise CheckpointError(f"{about} must have a model_cfg with a text_cfg and a vision_cfg")
    asked = towers[0].get("tokenizer_kwargs") or {}
    wrong = [key for key in asked if key not in _TOKENIZER] if isinstance(asked, dict) else ["tokenizer_kwargs"]
    if wrong:
        raise CheckpointError(f"{about}: {wrong[0]} of its tokenizer is not supported; {', '.join(_TOKENIZER)} are")
    for name in ("tokenizer_config.json", "config.json"):
        check_no_code(folder / name)
    weights = read_tensors(path, wrapped=True)
    values = sum(value.numel() for value in weights.values())
    deep = any(_number(tower.get("layers")) > len(weights) for tower in towers)
    wide = any(_number(value) > values for tower in (config, *towers) for value in tower.values())
    if deep or wide:
        raise CheckpointError(f"{about} describes a larger model than the {values} numbers of {path.name}")
    if not {"timm_model_name", "hf_model_name"} & {*towers[0], *towers[1]}:
        with torch.device("meta"):
            empty = library.create_model(f"local-dir:{folder}", load_weights=False, device="meta")
        if sum(value.numel() for value in empty.state_dict().values()) > 2 * values + 10**6:
            raise CheckpointError(f"{about} describes a larger model than the {values} numbers of {path.name}")
    return path


def _number(value: object) -> float:
    """The largest absolute number in a value."""
    if isinstance(value, list):
        return max(map(_number, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


def _library() -> Any:
    """The library. Raises: RLBenchError: it is not installed, or does not work with this torch."""
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # a torchvision of another build than torch raises RuntimeError
        raise RLBenchError(
            f"open_clip can't be imported ({first_line(error)}); run: pip install 'rlbind-bench[open-clip]', "
            "with torch and torchvision from the same index"
        ) from error
    return open_clip


def _resolve_tag(library: Any, source: str) -> tuple[str, dict[str, Any], Path]:
    """ARCH/TAG -> the name, arguments and file of weights of a model in open_clip's list. Raises: UnknownName."""
    arch, _, tag = source.rpartition("/")
    arch = arch.replace("/", "-")
    if arch not in library.list_models():
        raise UnknownName("open_clip architecture", arch, library.list_models())
    if tag not in library.list_pretrained_tags_by_model(arch):
        raise UnknownName(f"tag of open_clip's {arch}", tag, library.list_pretrained_tags_by_model(arch))
    config = library.get_pretrained_cfg(arch, tag)
    # If an architecture has another activation than its weights were trained with, open_clip only warns.
    return (
        arch,
        {"pretrained": tag, "force_quick_gelu": bool(config.get("quick_gelu"))},
        library.download_pretrained(config),
    )


@register("encoder", "open_clip:ARCH/TAG")
def open_clip(*, source: str) -> OpenClip:
    """Any model of open_clip: open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:hf-hub:chs20/fare2-clip, or a folder.

    Args:
        source: an architecture and tag of open_clip's list; `hf-hub:` with a repository, and `@REVISION` to pin it; or
            `local-dir:` with a folder laid out as on the hub.

    Raises:
        CheckpointError: a file is missing or faulty, or the hub can't be reached.
        UnknownName: there is no such architecture or tag.
        RLBenchError: open_clip is not installed.
    """
    library, arguments = _library(), dict[str, Any]()
    scheme, _, rest = source.partition(":")
    try:
        if scheme in ("hf-hub", "local-dir"):
            folder = expand_user(rest) if scheme == "local-dir" else hub.folder_of(rest, hub.OPEN_CLIP)
            name, path = f"local-dir:{folder}", _check_folder(folder, library)
        else:
            name, arguments, path = _resolve_tag(library, source)
        model = library.create_model(name, require_pretrained=True, **arguments)
        tokens = library.get_tokenizer(name)
    except RLBenchError:
        raise
    except Exception as error:  # open_clip and what it calls may raise anything for an arbitrary folder
        raise CheckpointError(f"open_clip can't load {source}: {first_line(error)}") from error
    for key, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds values that are not finite: {key}")
    return OpenClip(model.eval().requires_grad_(False), tokens, sha256_of(Path(path))).eval()
