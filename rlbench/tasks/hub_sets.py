"""Data sets of the Hugging Face hub, as folders in its cache; only `fetch_snapshot` uses the network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from rlbench.core.errors import DataError, first_line

COMMIT = re.compile(r"[0-9a-f]{7,40}")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the hub describes it.

    Attributes:
        path: relative to the repository.
        size: in bytes.
        digest: SHA-256 of its bytes if it is in large file storage; otherwise the SHA-1 that git gives it.
    """

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Remote:
    """What will be downloaded: a repository, its commit, and the files.

    Attributes:
        repo: such as "clip-benchmark/wds_vtab-pets".
        commit: 40 hexadecimal digits.
        files: those that are wanted.
    """

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def find_snapshot(repo: str, revision: str) -> Path | None:
    """Finds a repository's folder in the hub's cache, without the network; None if it is not there.

    Args:
        repo: of a data set.
        revision: a commit, or the beginning of one; or a branch or tag as it was when it was downloaded. If it was not
            downloaded under its name, the only commit that is there.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"
    commit = revision
    with suppress(OSError):
        commit = (folder / "refs" / revision).read_text().strip()
    found = sorted((folder / "snapshots").glob(f"{commit if COMMIT.fullmatch(commit) else ''}*"))
    return found[0] if len(found) == 1 and found[0].is_dir() else None


def describe_snapshot(repo: str, revision: str, patterns: Sequence[str]) -> Remote:
    """Asks the hub for a commit and its files.

    Args:
        repo: of a data set.
        revision: a commit, or the beginning of one; a branch or tag.
        patterns: of the paths that are wanted, where `*` also stands for folders.

    Raises: DataError: the hub can't be reached, or there is no such repository or revision.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if COMMIT.fullmatch(revision) and len(revision) < 40:  # the hub need not know the beginning of a commit
            revision = _complete(api, repo, revision)
        about = api.dataset_info(repo, revision=revision, files_metadata=True)
    except DataError:
        raise
    except Exception as error:  # the client raises the errors of its HTTP library, which differ between versions
        _fail(repo, revision, error)
    files = tuple(
        RemoteFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else str(one.blob_id))
        for one in about.siblings or ()
        if any(fnmatchcase(one.rfilename, pattern) for pattern in patterns)
    )
    return Remote(repo, str(about.sha), files)


def _complete(api: Any, repo: str, start: str) -> str:
    """The commit that begins with `start`. Raises: DataError unless there is exactly one."""
    api.dataset_info(repo)  # fails at once if the hub can't be reached; the list of commits would be asked for again
    found = {one.commit_id for one in api.list_repo_commits(repo, repo_type="dataset")}
    found = {commit for commit in found if commit.startswith(start)}
    if len(found) != 1:
        many = f"{len(found)} revisions that begin with" if found else "no revision"
        raise DataError(f"{repo} has {many} {start}; see https://huggingface.co/datasets/{repo}/commits/main")
    return str(found.pop())


def fetch_snapshot(remote: Remote, revision: str) -> Path:
    """Downloads what is missing into the hub's cache, and compares every file with what the hub says of it.

    An interrupted download resumes. The client of the hub shows progress.

    Args:
        remote: what to download.
        revision: the name that was asked for, under which a branch or tag is found again.

    Returns: the folder.

    Raises: DataError: the hub can't be reached, or a file differs.
    """
    from huggingface_hub import snapshot_download

    name = remote.commit if COMMIT.fullmatch(revision) else revision
    paths = [_escape(file.path) for file in remote.files]
    try:
        folder = Path(snapshot_download(remote.repo, repo_type="dataset", revision=name, allow_patterns=paths))
    except Exception as error:
        _fail(remote.repo, revision, error)
    for file in remote.files:
        _compare(folder / file.path, file)
    return folder


def _escape(path: str) -> str:
    """A pattern that fits this path alone."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _compare(path: Path, file: RemoteFile) -> None:
    """Raises: DataError if a file is missing, or has other bytes than the hub says; then it is removed."""
    if not path.is_file():
        raise DataError(f"{path} was not downloaded; run the same command again")
    size = path.stat().st_size
    digest = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as opened:
        while data := opened.read(_CHUNK):
            digest.update(data)
    if digest.hexdigest() != file.digest:
        with suppress(OSError):
            path.resolve().unlink()  # else the client would take it for a finished download
            path.unlink(missing_ok=True)
        raise DataError(
            f"{file.path} arrived with the checksum {digest.hexdigest()[:12]}; the hub says {file.digest[:12]}: "
            "it was removed, run the same command again"
        )


def _fail(repo: str, revision: str, error: Exception) -> NoReturn:
    """Raises: DataError in place of an error of the hub's client."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/datasets/{repo}"
    if isinstance(error, RevisionNotFoundError):
        raise DataError(f"{repo} has no revision {revision}; see {page}/commits/main") from error
    if isinstance(error, RepositoryNotFoundError):
        raise DataError(f"the hub has no data set {repo}, or it needs a login; see {page}") from error
    offline = isinstance(error, OfflineModeIsEnabled)
    why = "HF_HUB_OFFLINE is set" if offline else first_line(error.__cause__ or error)
    raise DataError(
        f"{repo} can't be downloaded ({why}); on a machine with network access, run "
        "the same command, then copy its cache (HF_HOME, by default ~/.cache/huggingface) to this machine"
    ) from error
