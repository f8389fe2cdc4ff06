"""Heads whose texts an attacker may change: the embeddings of all names that it may use, or of every template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Encoder, Label
from rlbench.encoders.articles import with_article
from rlbench.encoders.contract import call, check_unit
from rlbench.encoders.heads import prompts
from rlbench.encoders.outputs import embed_text

_BATCH = 512  # prompts of a call


def embed_names(
    encoder: Encoder, classes: Sequence[Label], names: Sequence[Sequence[str]], templates: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The anchors of edited names: prompt ensembles, as those of the classes.

    Args:
        encoder: embeds the prompts.
        classes: C classes.
        names: the names of each class.
        templates: T templates; an edited name keeps the article of its class.

    Returns:
        (K, D) unit anchors and (K,) int64, the class of each.
    """
    texts = [
        prompts(name, templates, _phrase(label, name))
        for label, own in zip(classes, names, strict=True)
        for name in own
    ]
    rows = _embed(encoder, [text for own in texts for text in own]).view(len(texts), len(templates), -1).mean(1)
    owners = torch.tensor([c for c, own in enumerate(names) for _ in own])
    return normalize(rows, dim=1), owners


def embed_templates(encoder: Encoder, classes: Sequence[Label], templates: Sequence[str]) -> Tensor:
    """(T C, D) unit anchors of every class in every template by itself, the first template's classes first."""
    texts = [prompts(label.name, [t], label.phrase)[0] for t in templates for label in classes]
    rows = _embed(encoder, texts)
    return normalize(rows, dim=1)


def _phrase(label: Label, name: str) -> str:
    """The edited name with the article that its class has."""
    phrase = label.phrase or with_article(label.name)
    return phrase.replace(label.name, name) if label.name in phrase else name


def _embed(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """(P,) -> (P, D) unit rows. Raises: RLBenchError: the text tower can't embed some of them."""
    parts = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    with torch.no_grad():
        found = torch.cat([call(partial(embed_text, encoder, part), "embed_text") for part in parts])
    check_unit(found, "embed_text, on texts that an attacker may write,")
    return found
