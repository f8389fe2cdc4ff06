"""A hub on this machine: the requests that huggingface_hub makes to list, download and change a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

LARGE = (".tar", ".png")  # suffixes of files in large file storage


@dataclass
class Hub:
    """Repositories by name: folders, and their commits, the newest first.

    Attributes:
        served: paths that were downloaded, with the first byte.
        altered: bytes by path that are sent in place of the file's.
        broken: paths of which only the first half is sent.
        commits: the files of each pull request, by path; the latest last.
        refused: the status of the answer to a commit; 0 to accept it.
    """

    url: str
    repos: dict[str, tuple[Path, list[str]]] = field(default_factory=dict)
    served: list[tuple[str, int]] = field(default_factory=list)
    altered: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    commits: list[dict[str, bytes]] = field(default_factory=list)
    refused: int = 0

    def files(self, repo: str) -> list[dict[str, Any]]:
        folder = self.repos[repo][0]
        return [self._describe(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]

    def _describe(self, folder: Path, path: Path) -> dict[str, Any]:
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        found: dict[str, Any] = {"type": "file", "path": name, "rfilename": name, "size": len(data)}
        found["oid"] = found["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if name.endswith(LARGE):
            sha = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"oid": sha, "sha256": sha, "size": len(data), "pointerSize": 130}
        return found


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """No log."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            api = re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|commits)/([^/]+))?", path)
            file = re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            repo = (api or file or [None, ""])[1]
            if repo not in hub.repos:
                return self._refuse(404, "RepoNotFound")
            commits = hub.repos[repo][1]
            revision = (api[3] if api else file[2]) or "main"
            if revision not in (*commits, "main"):
                return self._refuse(404, "RevisionNotFound")
            commit = commits[0] if revision == "main" else revision
            if file:
                return self._send_file(repo, file[3], commit)
            if api[2] == "commits":
                return self._send(
                    [
                        {"id": one, "title": "t", "message": "", "authors": [], "date": "2023-01-20T00:00:00.000Z"}
                        for one in commits
                    ]
                )
            if api[2] == "tree":
                return self._send(hub.files(repo))
            return self._send({"id": repo, "sha": commit, "siblings": hub.files(repo), "tags": []})

        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if path == "/api/validate-yaml":
                return self._send({"errors": [], "warnings": []})
            found = re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/(preupload|commit)/main", path)
            if found is None or found[1] not in hub.repos:
                return self._refuse(404, "RepoNotFound")
            if hub.refused:
                return self._refuse(hub.refused, "")
            assert "create_pr=1" in query
            if found[2] == "preupload":
                files = [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
                return self._send({"files": files})
            values = [one["value"] for one in map(json.loads, body.splitlines()) if one["key"] == "file"]
            hub.commits.append({one["path"]: base64.b64decode(one["content"]) for one in values})
            pull = f"{hub.url}/{found[1]}/discussions/{len(hub.commits)}"
            return self._send(
                {
                    "success": True,
                    "commitOid": f"{0:040}",
                    "commitUrl": f"{hub.url}/{found[1]}/commit/{0:040}",
                    "pullRequestUrl": pull,
                }
            )

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _send_file(self, repo: str, name: str, commit: str) -> None:
            path = hub.repos[repo][0] / name
            about = next((one for one in hub.files(repo) if one["path"] == name), None)
            if about is None:
                return self._refuse(404, "EntryNotFound")
            data = hub.altered.get(name, path.read_bytes())
            asked = re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{about["lfs"]["oid"] if "lfs" in about else about["oid"]}"')
            self.send_header("Content-Length", str(len(data) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "GET":
                hub.served.append((name, start))
                half = name in hub.broken
                hub.broken.discard(name)
                self.wfile.write(data[start : len(data) // 2 if half else None])

    return Handler


@contextmanager
def serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client uses in place of the real one, with an empty cache at `cache`."""
    from huggingface_hub import constants

    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}{template}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
