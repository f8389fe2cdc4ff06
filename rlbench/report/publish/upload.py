"""Files to a repository on the Hugging Face hub, as a pull request, or into a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from rlbench.core.errors import RLBenchError, StoreError, first_line
from rlbench.core.files import place

RepoType = Literal["model", "dataset"]
Files = Mapping[str, bytes | Path]  # by the path in the repository; a Path is a file on this machine


def find_token() -> str | None:
    """The token of `hf auth login` or HF_TOKEN; None without one."""
    from huggingface_hub import get_token

    return get_token()


def write_folder(folder: Path, files: Files) -> None:
    """Writes files into a folder, which is created; files that are in it already are not copied. Raises: StoreError."""
    for name, data in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                place(path, data)
        except OSError as error:
            raise StoreError(f"can't write {path}: {error.strerror or error}; choose another --out") from None


def read_readme(repo: str, *, repo_type: RepoType = "model") -> str:
    """The README.md of a repository; "" if it has none. Raises: RLBenchError: no network, repository or access."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _hub(repo):
        try:
            path = hf_hub_download(repo, "README.md", repo_type=repo_type)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return ""
    return Path(path).read_text(encoding="utf-8")


def open_pull_request(repo: str, files: Files, message: str, *, repo_type: RepoType = "model") -> str:
    """Uploads files as one commit of a new pull request; returns its address.

    Args:
        repo: OWNER/NAME.
        files: what the commit adds or replaces.
        message: its title.
        repo_type: of the repository.

    Raises:
        RLBenchError: the hub can't be reached, there is no such repository, or the token has no rights.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    adds = [CommitOperationAdd(name, data) for name, data in files.items()]
    with _hub(repo):
        made = HfApi().create_commit(repo, adds, commit_message=message, repo_type=repo_type, create_pr=True)
    return str(made.pr_url)


@contextmanager
def _hub(repo: str) -> Iterator[None]:
    """Turns the errors of the hub and of its network into one line."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    network = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))  # the client's library's, too
    folder = "or add --dry-run to write the files into a folder"
    try:
        yield
    except RepositoryNotFoundError as error:
        raise RLBenchError(
            f"there is no repository {repo} on the hub that this token can see; create it (hf repos create {repo}), "
            f"log in with another token (hf auth login), {folder}"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "")
        if status in (401, 403):
            raise RLBenchError(
                f"the token may not open a pull request on {repo} ({status}); it needs the right to write discussions: "
                f"make one at https://huggingface.co/settings/tokens, {folder}"
            ) from error
        raise RLBenchError(f"the hub refused the files for {repo}: {first_line(error)}; {folder}") from error
    except network as error:
        raise RLBenchError(
            f"the hub can't be reached ({first_line(error.__cause__ or error)}); try again, {folder}"
        ) from error
