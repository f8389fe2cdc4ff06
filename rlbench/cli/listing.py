"""What is installed, as rows for `rlbench list`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlbench.encoders.cards import Model


def list_installed(kind: str) -> list[dict[str, object]]:
    """One row per installed suite, model or plugin of a kind; imports no torch."""
    if kind == "suites":
        from rlbench.core.suite import suites

        return [asdict(suite) for suite in suites()]
    if kind == "models":
        from rlbench.encoders.models import models

        return [_model(model) for model in models()]
    from rlbench.core.registry import entries

    found = [entry for (of, _), entry in sorted(entries().items()) if f"{of}s" == kind]
    return [{"name": e.name, "summary": e.summary, "defined in": f"{e.module}.{e.attribute}"} for e in found]


def list_data_sets() -> list[dict[str, object]]:
    """One row per published data set; what is unknown is "-", a rounded number has a tilde."""
    from rlbench.tasks import integrity
    from rlbench.tasks.wds_sets import UNPINNED

    return [
        {
            "name": name,
            "modality": one.modality,
            "classes": str(integrity.count_classes(one) or "-"),
            "test examples": "~" * one.source.rounded + str(one.source.test or "-"),
            "revision": "not pinned" if one.source.revision == UNPINNED else one.source.revision[:7] or "-",
            "licence": one.source.licence,
            "folder": one.source.folder,
            "get it from": one.source.url,
            "layout": one.source.layout,
        }
        for name, one in integrity.list_data_sets().items()
    ]


def _model(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "backbone": model.backbone,
        "modalities": list(model.modalities),
        "summary": model.summary,
        "source": model.source,
        "trained on": model.data,
        "bytes": model.size,
        "sha256": model.sha256,
    }


def brief(row: Mapping[str, object]) -> dict[str, str]:
    """A row of `list_installed` for a terminal: without paths, hashes shortened."""
    if "sha256" in row:
        return _brief_model(row)
    return {name: str(value) for name, value in row.items() if name not in ("path", "defined in")}


def _brief_model(row: Mapping[str, Any]) -> dict[str, str]:
    weights = [f"{modality} {row['sha256'].get(modality, '')[:12]}".strip() for modality in row["modalities"]]
    size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
    about = [row["summary"], row["trained on"] and f"Data: {row['trained on']}.", row["source"]]
    return {
        "name": row["name"],
        "backbone": row["backbone"],
        "modality, sha256": "\n".join(weights) or "-",
        "size": size or "-",
        "about": "\n".join(filter(None, about)),
    }
