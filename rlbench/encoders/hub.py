"""Published checkpoints of the Hugging Face hub, as folders of its cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, first_line

_TOKENS = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.json", "tokenizer_config.json", "spiece.model")
_MORE = ("special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint: what describes it, and the names that its weights can have, the preferred first."""

    config: str
    weights: tuple[str, ...]

    def whole(self, folder: Path) -> bool:
        """Files appear in a snapshot once they are downloaded as a whole."""
        return (folder / self.config).is_file() and any((folder / name).is_file() for name in self.weights)


TRANSFORMERS = Layout("config.json", ("model.safetensors", "pytorch_model.bin"))
OPEN_CLIP = Layout(
    "open_clip_config.json",
    ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
)


def fetch(repo: str, revision: str | None = None, layout: Layout = TRANSFORMERS) -> Path:
    """The folder of a checkpoint such as "LanguageBind/LanguageBind_Thermal": from the cache, or downloaded into it.

    A download that was interrupted goes on where it was; the hub's client checks what it has downloaded.

    Raises:
        CheckpointError: it is not in the cache, and the hub can't be reached or does not have it.
    """
    from huggingface_hub import snapshot_download

    small = [layout.config, *_TOKENS, *_MORE]
    try:
        files = [*small, *layout.weights]
        kept = Path(snapshot_download(repo, revision=revision, allow_patterns=files, local_files_only=True))
        if layout.whole(kept):
            return kept
    except OSError:
        pass  # not in the cache
    except ValueError as error:
        raise CheckpointError(f"{repo!r} is no name of a checkpoint on the hub: {first_line(error)}") from error
    try:
        for weights in layout.weights:  # often in several formats, of which one will do
            kept = Path(snapshot_download(repo, revision=revision, allow_patterns=[*small, weights]))
            if layout.whole(kept):
                break
    except OSError as error:
        at, why = f" --revision {revision}" if revision else "", first_line(error.__cause__ or error)
        raise CheckpointError(
            f"{repo} is not in the hub's cache and can't be downloaded ({why}); where there is network, run: "
            f"hf download {repo}{at}; then copy the cache (HF_HOME, by default ~/.cache/huggingface) here"
        ) from error
    return kept


def name_of_snapshot(folder: Path) -> tuple[str, str] | None:
    """The checkpoint and revision that a folder of the cache holds; None for a folder elsewhere."""
    *_, repo, snapshots, revision = ("", "", *folder.absolute().parts)
    if snapshots != "snapshots" or not repo.startswith("models--"):
        return None
    return repo.removeprefix("models--").replace("--", "/"), revision


def is_folder(source: str) -> bool:
    """Whether a name is a folder's, and no repository's: it begins with `/`, `.` or `~`."""
    return source.startswith((".", "~")) or Path(source).is_absolute()


def folder_of(source: str, layout: Layout = TRANSFORMERS) -> Path:
    """The folder of `./FOLDER`, or of a repository on the hub: `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Raises: CheckpointError.
    """
    if is_folder(source):
        return expand_user(source)
    repo, _, revision = source.partition("@")
    return fetch(repo, revision or None, layout)


def weights_file(folder: Path, layout: Layout = TRANSFORMERS) -> Path:
    """The weights of a checkpoint's folder. Raises: CheckpointError: there is no folder, or no weights in it."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint's folder {folder}")
    for name in layout.weights:
        if (folder / name).is_file():
            return folder / name
    shards = next(iter(sorted(folder.glob("*.index.json"))), None)
    parts = f"; {shards.name} is of weights in several files, which must be made one" if shards else ""
    raise CheckpointError(f"{folder} has no weights; there must be {' or '.join(layout.weights)}{parts}")
