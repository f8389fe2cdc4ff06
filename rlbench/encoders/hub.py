"""Published checkpoints of the Hugging Face hub, as folders in its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlbench.core.documents import expand_user, load_json, read_text
from rlbench.core.errors import CheckpointError, first_line, quote, shorten

_TOKENS = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.json", "tokenizer_config.json", "spiece.model")
_MORE = ("special_tokens_map.json", "added_tokens.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint.

    Attributes:
        config: the file that describes it.
        weights: possible names of the file of weights, in order of preference; a name that ends in INDEX is that of a
            list of shards, files that each have a part of the weights.
    """

    config: str
    weights: tuple[str, ...]

    def find_weights(self, folder: Path) -> Path | None:
        """The file of weights in a folder, or the index of shards that are all there; None if there is none.

        A snapshot in the cache shows a file only once its download is complete.
        """
        return next((folder / name for name in self.weights if not find_missing(folder / name)), None)

    def is_whole(self, folder: Path) -> bool:
        """Whether a folder has the config and weights."""
        return (folder / self.config).is_file() and self.find_weights(folder) is not None


INDEX = ".index.json"
TRANSFORMERS = Layout(
    "config.json",
    ("model.safetensors", "pytorch_model.bin", f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}"),
)
ADAPTER = Layout("adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin"))  # of PEFT
PREPARATION = Layout("preprocessor_config.json", ("tokenizer.json", "vocab.json"))  # without weights
OPEN_CLIP = Layout(
    "open_clip_config.json",
    ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
)


def read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor. Raises: CheckpointError: the file is no index, or names a file in another folder."""
    try:
        found = load_json(read_text(path, 2**24))
        shards = {str(name): str(shard) for name, shard in found["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an index of shards: {first_line(error)}") from error
    for shard in shards.values():
        if Path(shard).name != shard or shard.startswith(".") or "\\" in shard:
            raise CheckpointError(f"{path} names the shard {quote(shard)}; it must be a file beside it")
    return shards


def find_missing(path: Path) -> str:
    """The name of a file of weights, or of a shard of an index, that is missing; "" if there is none."""
    if not path.is_file():
        return path.name
    shards = sorted(set(read_index(path).values())) if path.name.endswith(INDEX) else []
    return next((shard for shard in shards if not path.with_name(shard).is_file()), "")


def fetch(repo: str, revision: str | None = None, layouts: Sequence[Layout] = (TRANSFORMERS,)) -> Path:
    """The folder of a checkpoint in the cache; downloads it if needed.

    An interrupted download resumes; the hub's client verifies the files.

    Args:
        repo: the repository, such as "LanguageBind/LanguageBind_Thermal".
        revision: a commit, branch or tag; None: the newest.
        layouts: the files to fetch, those of one of these.

    Raises:
        CheckpointError: it is not in the cache, and the hub can't be reached or does not have it.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if any(layout.is_whole(folder) for layout in layouts):
            return folder
    except OSError:
        pass  # not in the cache
    except ValueError as error:
        here = f"; the folder here is ./{repo}" if Path(repo).is_dir() else ""
        raise CheckpointError(
            f"{repo!r} is not the name of a checkpoint on the hub{here}: {first_line(error)}"
        ) from error
    try:
        return _download(repo, revision, layouts)
    except OSError as error:
        raise CheckpointError(_explain(error, repo, revision)) from error


def _explain(error: OSError, repo: str, revision: str | None) -> str:
    """Why a checkpoint can't be downloaded, and what to do."""
    from huggingface_hub import errors

    if Path(repo).is_dir():
        return f"the hub's cache has no {repo}, and it can't be downloaded; the folder of that name here is ./{repo}"
    page = f"https://huggingface.co/{repo}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; give a commit, branch or tag of {page}/commits"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is only for those who accepted its terms: do so on {page}, then log in: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no {repo}, or it is private: check the name, or log in: hf auth login"
    cause, at = error.__cause__ or error, f" --revision {revision}" if revision else ""
    why = "HF_HUB_OFFLINE is set" if isinstance(cause, errors.OfflineModeIsEnabled) else shorten(first_line(cause), 120)
    return (
        f"{repo} is not in the hub's cache and can't be downloaded ({why}); on a machine with network access, run: "
        f"hf download {repo}{at}; then copy its cache (HF_HOME, by default ~/.cache/huggingface) to this machine"
    )


def _download(repo: str, revision: str | None, layouts: Sequence[Layout]) -> Path:
    """Downloads the small files and one file of weights, or its shards; returns their folder. Raises: OSError."""
    from huggingface_hub import snapshot_download

    small, folder = [*(layout.config for layout in layouts), *_TOKENS, *_MORE], Path()
    for layout in layouts:
        for weights in layout.weights:  # one of several formats is enough
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*small, weights]))
            if weights.endswith(INDEX) and (folder / weights).is_file():
                shards = sorted(set(read_index(folder / weights).values()))
                snapshot_download(repo, revision=revision, allow_patterns=shards)
            if layout.is_whole(folder):
                return folder
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


def folder_of(source: str, *layouts: Layout) -> Path:
    """The folder of `./FOLDER`, or of a repository on the hub: `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Args:
        source: the name.
        layouts: the files of a repository to fetch, see `fetch`; none: TRANSFORMERS.

    Raises: CheckpointError.
    """
    if is_folder(source):
        return expand_user(source)
    repo, _, revision = source.partition("@")
    return fetch(repo, revision or None, layouts or (TRANSFORMERS,))


def weights_file(folder: Path, layout: Layout = TRANSFORMERS) -> Path:
    """The file of weights in a checkpoint's folder, or the index of its shards.

    Raises: CheckpointError: there is no such folder, no weights in it, or a shard is missing.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}, which should hold a checkpoint")
    if found := layout.find_weights(folder):
        return found
    for name in layout.weights:
        if name.endswith(INDEX) and (folder / name).is_file():
            shard = find_missing(folder / name)
            raise CheckpointError(f"{folder / name} names {shard}, which is missing: download the folder again")
    names = [name for name in layout.weights if not name.endswith(INDEX)]
    raise CheckpointError(f"{folder} has no weights; it must have {' or '.join(names)}")
