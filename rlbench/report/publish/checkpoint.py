"""A training run's folder -> the files of a CLIP that transformers and open_clip both load, checked by loading them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Encoder, Modality
from rlbench.core.documents import read_text
from rlbench.core.errors import CheckpointError, StoreError
from rlbench.encoders.cards import Model
from rlbench.encoders.clip import export
from rlbench.encoders.clip.fronts import Pixels
from rlbench.encoders.clip.text import ClipTokens
from rlbench.encoders.languagebind import LanguageBind
from rlbench.encoders.models import load_encoder, make_encoder, resolve
from rlbench.report.publish.model_card import make_card

TOLERANCE = 1e-5  # largest difference of a coordinate of a unit vector
PROMPTS = ("a photo of a dog", "a thermal photo of a person", "rain")
BOTH = """Both libraries load this repository as it is:

```python
from transformers import CLIPModel, CLIPProcessor
model = CLIPModel.from_pretrained("{repo}")
processor = CLIPProcessor.from_pretrained("{repo}")

import open_clip
model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{repo}")
tokenizer = open_clip.get_tokenizer("hf-hub:{repo}")
```

To measure its robustness: `rlbench run --suite SUITE --model hf:{repo}`."""


@dataclass(frozen=True)
class Exported:
    """Files that were written.

    Attributes:
        files: their paths by name.
        modality: of the tower.
        differences: the largest difference of an embedding from the run's, by library; a library that is not
            installed is missing.
    """

    files: Mapping[str, Path]
    modality: Modality
    differences: Mapping[str, float]


def export_run(
    folder: Path, out: Path, repo: str, *, modality: Modality | None = None, licence: str | None = None
) -> Exported:
    """Writes the files of a run's tower and its text tower, and loads them back; a README.md that is there stays.

    Args:
        folder: the folder of a training run.
        out: the folder to write to, which is created.
        repo: the repository that they are for.
        modality: which tower; None: the only one.
        licence: an id of the hub's licences for the card; None: not stated.

    Raises:
        CheckpointError: there is no finished run, its architecture can't be expressed, or a library gives other
            embeddings than the run.
    """
    model = find_run(folder)
    chosen = choose_modality(model, modality)
    encoder = make_encoder(model, chosen)
    if not isinstance(encoder, LanguageBind):
        raise CheckpointError(
            f"{folder} holds a {model.backbone}, whose convolutional stem and hashed text are in neither transformers "
            "nor open_clip; publish the folder itself, which rlbench reads: hf upload OWNER/NAME FOLDER"
        )
    card = _make_card(model, chosen, encoder, repo, licence)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out, encoder, chosen, repo)
        if not (out / "README.md").exists():
            (out / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"can't write {out}: {error.strerror or error}; choose another --out") from None
    files = {path.name: path for path in sorted(out.iterdir()) if path.is_file()}
    return Exported(files, chosen, compare_libraries(encoder, chosen, out))


def _write(out: Path, encoder: LanguageBind, modality: Modality, repo: str) -> None:
    """Writes weights, configs and tokenizer. Raises: CheckpointError: the towers can't be expressed. OSError."""
    vision, text, tokens = encoder.tower(modality).vision, encoder.text.tower, encoder.text.tokens
    export.check_stock(vision.sizes, text.sizes)
    if not isinstance(tokens, ClipTokens):
        raise CheckpointError(
            "the text tower of this run has random weights and no tokenizer; "
            "only a run that starts from a published checkpoint can be published"
        )
    begin, end, pad = tokens.special
    tokens.save(out)
    weights = export.transformers_weights(vision, text, encoder.logit_scale)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    save_file(export.open_clip_weights(weights), out / "open_clip_model.safetensors", metadata={"format": "pt"})
    config = export.transformers_config(vision.sizes, text.sizes, begin=begin, end=end, pad=pad)
    _write_json(out / "config.json", config)
    _write_json(out / "preprocessor_config.json", export.processor_config(vision.sizes.height))
    _write_json(out / "open_clip_config.json", export.open_clip_config(vision.sizes, text.sizes, repo))


def find_run(folder: Path) -> Model:
    """The model of a run's folder. Raises: CheckpointError: there is no finished run."""
    if not (folder / "card.yaml").is_file():
        started = (folder / "recipe.yaml").is_file()
        raise CheckpointError(
            f"{folder} holds a run that is not finished; resume it with rlbench train ... --out {folder}"
            if started
            else f"{folder} is not the folder of a training run: it has no card.yaml, which rlbench train writes"
        )
    return resolve(str(folder.absolute()))


def choose_modality(model: Model, modality: Modality | None) -> Modality:
    """The modality of a run to publish. Raises: CheckpointError: there are several, or not this one."""
    found = tuple(model.weights)
    if modality is None and len(found) == 1:
        return found[0]
    if modality in found:
        return modality
    raise CheckpointError(f"{model.name} has {', '.join(found)}; a repository holds one: choose it with --modality")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def compare_libraries(run: LanguageBind, modality: Modality, folder: Path) -> dict[str, float]:
    """The largest difference of the embeddings that each installed library gives from those of the run.

    Raises: CheckpointError: it is above TOLERANCE.
    """
    names = {"transformers": f"hf:{folder.absolute()}"}
    if find_spec("open_clip"):
        names["open_clip"] = f"open_clip:local-dir:{folder.absolute()}"
    sizes = run.tower(modality).vision.sizes
    x = torch.rand((2, 3, sizes.height, sizes.width), generator=torch.Generator().manual_seed(0))
    expected = _embed_pixels(run, modality, x), run.embed_text(PROMPTS)
    found = {}
    for library, name in names.items():
        loaded: Encoder = load_encoder(name, "image")
        with torch.no_grad():
            given = loaded.embed(x, "image"), loaded.embed_text(PROMPTS)
        found[library] = max(float((a - b).abs().max()) for a, b in zip(given, expected, strict=True))
        if found[library] > TOLERANCE:
            raise CheckpointError(
                f"{folder}, loaded by {library}, differs from the run by {found[library]:.1e} in its embeddings, "
                f"not by {TOLERANCE} at most: try another release of {library}"
            )
    return found


def _embed_pixels(run: LanguageBind, modality: Modality, x: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, D), unit norm; the box of the run may have one channel."""
    tower = run.tower(modality)
    with torch.no_grad():
        return normalize(tower.vision(Pixels(tower.front.box)(x)), dim=-1)


def _make_card(model: Model, modality: Modality, encoder: LanguageBind, repo: str, licence: str | None) -> str:
    """The model card: how to load it, and how it was trained."""
    origin = encoder.text.source.split()
    header = {
        "license": licence,
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "base_model": origin[1] if origin[0] == "hub" else None,
        "tags": ["clip", "transformers", "adversarial-robustness", modality],
    }
    recipe = model.folder / "recipe.yaml"
    known = yaml.safe_load(read_text(recipe))["recipes"].get(modality, {}) if recipe.is_file() else {}
    facts = {**model.weights[modality].trained, "recipe": known} if known else dict(model.weights[modality].trained)
    about = f"{model.summary} It embeds {modality} inputs and text; trained on {model.data or 'data not stated'}."
    if modality in ("thermal", "depth"):
        about += f" It takes {modality} as grey images in [0, 1]."
    training = f"```yaml\n{yaml.safe_dump(facts, sort_keys=False).strip()}\n```"
    return make_card(repo.partition("/")[2], header, {"": about, "Use": BOTH.format(repo=repo), "Training": training})
