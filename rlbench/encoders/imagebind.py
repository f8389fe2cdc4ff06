"""ImageBind from its published file, for images, videos and sounds; https://github.com/facebookresearch/ImageBind.

Girdhar et al., 2023, https://arxiv.org/abs/2305.05665. Its authors published how these inputs are prepared, but not how
thermal and depth images are; so the towers for those are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from rlbench.core import Box, Modality, Trait
from rlbench.core.box import Fit
from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.core.media import filterbank
from rlbench.core.registry import register
from rlbench.encoders import hub
from rlbench.encoders.clip.fronts import Pixels
from rlbench.encoders.clip.imagebind_towers import HEADS, ImageBindTower, rename
from rlbench.encoders.clip.text import ClipTokens
from rlbench.encoders.clip.weights import read_tensors, sha256_of

TOKENIZER = ("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")  # where the folder has none
SECONDS, PIECES = 2.0, 3  # length and number of the pieces of a sound
MELS, FRAMES, STRIDE = 128, 204, 10  # of a piece; the stride of the stem that cuts it into patches
MEAN, STD = -4.268, 9.138  # of log-mel frames
_BATCH = 64  # prompts per call


class ImageBind(nn.Module):
    """ImageBind's towers as an Encoder.

    A video is cut into pairs of frames, and a sound into three pieces of two seconds; the embedding is their mean.
    Upstream takes five pairs of frames and three crops of each; here the box has the pairs, and the crop is the centre.
    """

    traits: frozenset[Trait] = frozenset()

    def __init__(
        self,
        towers: Mapping[str, ImageBindTower],
        tokens: ClipTokens,
        scale: float,
        boxes: Mapping[Modality, Box],
        sha256: str,
    ) -> None:
        super().__init__()
        self.towers, self.tokens = nn.ModuleDict(dict(towers)), tokens
        self.logit_scale, self._boxes, self._sha256 = scale, dict(boxes), sha256
        self.pixels = Pixels(boxes["image"])

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return self._boxes

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return dict.fromkeys(self._boxes, self._sha256)

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        if modality not in self._boxes:
            raise ModalityError(f"this encoder has no {modality}; it has {', '.join(self._boxes)}")
        if modality == "audio":
            pieces = torch.stack([self._log_mel(piece) for piece in _cut(x[:, 0])], 1)
            return self._mean("audio", pieces)
        if modality == "video":
            pairs = self.pixels(x.transpose(1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
        else:
            pairs = self.pixels(x)[:, None, :, None].expand(-1, -1, -1, 2, -1, -1)  # an image is a still of two frames
        return self._mean("vision", pairs)

    def _mean(self, tower: str, parts: Tensor) -> Tensor:
        """The embedding of the parts (B, K, ...) of each input, the mean of theirs: (B, D), unit norm."""
        features = normalize(self.towers[tower](parts.flatten(0, 1)), dim=-1)
        return normalize(features.view(*parts.shape[:2], -1).mean(1), dim=-1)

    def _log_mel(self, wave: Tensor) -> Tensor:
        """(B, samples) -> (B, 1, mels, frames); a shorter piece is padded with zeros, as upstream, before the mean."""
        wave = wave - wave.double().mean(1, keepdim=True).to(wave.dtype)
        mel = filterbank.fbank(wave, MELS).transpose(1, 2)[..., :FRAMES]
        return (pad(mel, (0, FRAMES - mel.shape[-1])) - MEAN)[:, None] / STD

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        tower, rows = cast(ImageBindTower, self.towers["text"]), []
        with torch.no_grad():
            for start in range(0, max(len(prompts), 1), _BATCH):
                ids, _ = self.tokens(list(prompts[start : start + _BATCH]) or [""])
                rows.append(normalize(tower.embed_ids(ids.to(tower.positions.device)), dim=-1))
        return torch.cat(rows)[: len(prompts)]


def _cut(wave: Tensor) -> list[Tensor]:
    """(B, samples) -> pieces of SECONDS at equal distances, from the start to the end."""
    samples = int(SECONDS * filterbank.RATE)
    last = max(wave.shape[1] - samples, 0)
    starts = [round(last * k / (PIECES - 1)) for k in range(PIECES)] if last else [0]
    return [wave[:, start : start + samples] for start in starts]


@register("encoder", "imagebind:FILE")
def imagebind(*, source: str, seconds: float = 10.0, frames: int = 10) -> ImageBind:
    """ImageBind-Huge from its published file imagebind_huge.pth, such as imagebind:./imagebind_huge.pth.

    Args:
        source: the file. If its folder has a CLIP tokenizer (vocab.json and merges.txt), that is used; else OpenAI's of
            the hub.
        seconds: length of waveforms, at least 0.025.
        frames: number of frames of a video, even.

    Raises:
        CheckpointError: the file is missing or does not hold these towers, or the tokenizer can't be fetched.
        FieldError: seconds or frames is out of range.
    """
    if not 0.025 <= seconds <= 600 or frames < 2 or frames % 2:
        raise FieldError(f"seconds is {seconds} and frames {frames}; they must be 0.025 to 600, and even")
    path = expand_user(source)
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}; download https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth "
            "(its licence is CC BY-NC 4.0), and give --model imagebind:./imagebind_huge.pth"
        )
    weights = {name: value.float() for name, value in read_tensors(path, ignored=(".mask",)).items()}
    towers = {
        name: ImageBindTower(rename(weights, name), heads, stride=STRIDE * (name == "audio"), source=str(path))
        for name, heads in HEADS.items()
    }
    text, vision = towers["text"], towers["vision"]
    _check_positions(towers["audio"], path)
    scale = (
        weights.get("modality_postprocessors.text.1.log_logit_scale", torch.tensor(100.0).log()).exp().clamp(max=100)
    )
    folder = path.parent if (path.parent / "vocab.json").is_file() else hub.fetch(*TOKENIZER, (hub.PREPARATION,))
    tokens = ClipTokens(folder, len(text.tokens), text.positions.shape[1])
    encoder = ImageBind(towers, tokens, float(scale), _boxes(vision, seconds, frames), sha256_of(path))
    return encoder.eval().requires_grad_(False)


def _boxes(vision: ImageBindTower, seconds: float, frames: int) -> dict[Modality, Box]:
    """The boxes of the modalities."""
    side = vision.stem.weight.shape[-1] * round((vision.positions.shape[1] - 1) ** 0.5)
    fit = Fit(resize="short", size=(side, side), centre="even")  # as torchvision
    return {
        "image": Box(shape=(3, side, side), fit=fit),
        "video": Box(shape=(3, frames, side, side)),
        "audio": Box(
            shape=(1, round(seconds * filterbank.RATE)), low=-1.0, high=1.0, unit="waveform", rate=filterbank.RATE
        ),
    }


def _check_positions(audio: ImageBindTower, path: Path) -> None:
    """Raises: CheckpointError: the audio tower is for other sounds than MELS x FRAMES."""
    kernel, found = audio.stem.weight.shape[-1], audio.positions.shape[1]
    needed = ((MELS - kernel) // STRIDE + 1) * ((FRAMES - kernel) // STRIDE + 1) + 1
    if found != needed:
        raise CheckpointError(
            f"{path}: its audio tower has {found} positions; {MELS} x {FRAMES} log-mel frames need {needed}"
        )
