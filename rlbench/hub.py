"""Published checkpoints of the Hugging Face hub, as folders of its cache."""

from __future__ import annotations

from pathlib import Path

from rlbench.errors import CheckpointError, first_line

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_FILES = ["config.json", *_WEIGHTS, "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"]


def _whole(folder: Path) -> bool:
    """Files appear in a snapshot once they are downloaded as a whole."""
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in _WEIGHTS)


def fetched(repo: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint such as "LanguageBind/LanguageBind_Thermal": from the cache, or downloaded into it.

    A download that was interrupted goes on where it was; the hub's client checks what it has downloaded.

    Raises:
        CheckpointError: it is not in the cache, and the hub can't be reached or does not have it.
    """
    from huggingface_hub import snapshot_download

    try:
        kept = Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES, local_files_only=True))
        if _whole(kept):
            return kept
    except OSError:
        pass  # not in the cache
    except ValueError as error:
        raise CheckpointError(f"{repo!r} is no name of a checkpoint on the hub: {first_line(error)}") from error
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES))
    except OSError as error:
        at, why = f" --revision {revision}" if revision else "", first_line(error.__cause__ or error)
        raise CheckpointError(
            f"{repo} is not in the hub's cache and can't be downloaded ({why}); where there is network, run: "
            f"hf download {repo}{at}; then copy the cache (HF_HOME, by default ~/.cache/huggingface) here"
        ) from error


def named(folder: Path) -> tuple[str, str] | None:
    """The checkpoint and revision that a folder of the cache holds; None for a folder elsewhere."""
    *_, repo, snapshots, revision = ("", "", *folder.absolute().parts)
    if snapshots != "snapshots" or not repo.startswith("models--"):
        return None
    return repo.removeprefix("models--").replace("--", "/"), revision


def weights_file(folder: Path) -> Path:
    """The weights of a checkpoint's folder. Raises: CheckpointError: there is no folder, or no weights in it."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint's folder {folder}")
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no weights; there must be {' or '.join(_WEIGHTS)}")
