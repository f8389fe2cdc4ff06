"""Published checkpoints of the Hugging Face hub, as folders in its cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, first_line

_TOKENS = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.json", "tokenizer_config.json", "spiece.model")
_MORE = ("special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint.

    Attributes:
        config: the file that describes it.
        weights: possible names of the file of weights, in order of preference.
    """

    config: str
    weights: tuple[str, ...]

    def whole(self, folder: Path) -> bool:
        """Whether a folder has the config and weights; a snapshot shows a file only once its download is complete."""
        return (folder / self.config).is_file() and any((folder / name).is_file() for name in self.weights)


TRANSFORMERS = Layout("config.json", ("model.safetensors", "pytorch_model.bin"))
OPEN_CLIP = Layout(
    "open_clip_config.json",
    ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
)


def fetch(repo: str, revision: str | None = None, layout: Layout = TRANSFORMERS) -> Path:
    """The folder of a checkpoint in the cache; downloads it if needed.

    An interrupted download resumes; the hub's client verifies the files.

    Args:
        repo: the repository, such as "LanguageBind/LanguageBind_Thermal".
        revision: a commit, branch or tag; None: the newest.
        layout: the files to fetch.

    Raises:
        CheckpointError: it is not in the cache, and the hub can't be reached or does not have it.
    """
    from huggingface_hub import snapshot_download

    small = [layout.config, *_TOKENS, *_MORE]
    try:
        files = [*small, *layout.weights]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=files, local_files_only=True))
        if layout.whole(folder):
            return folder
    except OSError:
        pass  # not in the cache
    except ValueError as error:
        raise CheckpointError(f"{repo!r} is not the name of a checkpoint on the hub: {first_line(error)}") from error
    try:
        for weights in layout.weights:  # one of several formats is enough
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*small, weights]))
            if layout.whole(folder):
                break
    except OSError as error:
        at, why = f" --revision {revision}" if revision else "", first_line(error.__cause__ or error)
        raise CheckpointError(
            f"{repo} is not in the hub's cache and can't be downloaded ({why}); on a machine with network access, run: "
            f"hf download {repo}{at}; then copy its cache (HF_HOME, by default ~/.cache/huggingface) to this machine"
        ) from error
    return folder


def name_of_snapshot(folder: Path) -> tuple[str, str] | None:
    """The checkpoint and revision of a folder in the cache; None for any other folder."""
    *_, repo, snapshots, revision = ("", "", *folder.absolute().parts)
    if snapshots != "snapshots" or not repo.startswith("models--"):
        return None
    return repo.removeprefix("models--").replace("--", "/"), revision


def is_folder(source: str) -> bool:
    """Whether a name is a folder rather than a repository: it begins with `/`, `.` or `~`."""
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
    """The file of weights in a checkpoint's folder. Raises: CheckpointError: no such folder, or no weights in it."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}, which should hold a checkpoint")
    for name in layout.weights:
        if (folder / name).is_file():
            return folder / name
    shards = next(iter(sorted(folder.glob("*.index.json"))), None)
    parts = f"; {shards.name} belongs to weights in several files: merge them into one" if shards else ""
    raise CheckpointError(f"{folder} has no weights; it must have {' or '.join(layout.weights)}{parts}")
