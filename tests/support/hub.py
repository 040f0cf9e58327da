"""A hub of models in this process: the few routes of its HTTP API by which files are found and read."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]

_CODES = {
    "Repository not found": "RepoNotFound",
    "Revision not found": "RevisionNotFound",
    "Entry not found": "EntryNotFound",
}


class Hub:
    """One repository. Commits are kept; a branch names one of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.commits: dict[str, Files] = {}
        self.branches: dict[str, str] = {}
        self.log: list[str] = []
        self.refuse: int | None = None
        self.url = ""

    def push(self, files: Files, branch: str = "main") -> str:
        """A commit with exactly these files, which the branch names from now on."""
        commit = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def answer(self, path: str, body: bytes, *, deep: bool) -> tuple[int, Any]:
        """Status and JSON, or bytes of a file."""
        if self.refuse is not None:
            return self.refuse, {"error": "no"}
        api, name = f"/api/models/{self.name}", self.name
        if not path.startswith((api, f"/{name}/resolve/")):
            return 404, {"error": "Repository not found"}
        if path.startswith("/api"):
            verb, _, rest = path.removeprefix(api).lstrip("/").partition("/")
            revision, _, below = rest.partition("/")
        else:
            verb = "resolve"
            revision, _, below = path.removeprefix(f"/{name}/resolve/").partition("/")
        commit = self.branches.get(revision or "main", revision)
        files = self.commits.get(commit)
        if files is None:
            return 404, {"error": "Revision not found"}
        if verb == "resolve":
            return (200, files[below]) if below in files else (404, {"error": "Entry not found"})
        if verb == "tree":
            return _tree(files, below, deep)
        if verb == "paths-info":
            wanted = parse_qs(body.decode())["paths"]
            return 200, [_entry(file, files[file]) for file in wanted if file in files]
        return 200, {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}


def _tree(files: Files, below: str, deep: bool) -> tuple[int, Any]:
    folder = f"{below}/" if below else ""
    inside = {file: data for file, data in files.items() if file.startswith(folder)}
    if not inside:
        return 404, {"error": "Entry not found"}
    folders = {file[: file.index("/", len(folder))] for file in inside if "/" in file[len(folder) :]}
    shown = [_entry(file, data) for file, data in inside.items() if deep or "/" not in file[len(folder) :]]
    return 200, [*shown, *({"type": "directory", "path": path, "oid": "t" * 40} for path in sorted(folders))]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub answers at ``hub.url``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            url = urlsplit(self.path)
            path, deep = unquote(url.path), "recursive=true" in url.query.lower()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.log.append(f"{self.command} {path}")
            status, found = hub.answer(path, body, deep=deep)
            data, headers = _ranged(found, self.headers.get("Range"))
            if isinstance(found, bytes) and self.headers.get("Range"):
                status = 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status >= 400:
                self.send_header("X-Error-Code", _CODES.get(found["error"], ""))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_HEAD = _handle

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _ranged(found: Any, wanted: str | None) -> tuple[bytes, dict[str, str]]:
    if not isinstance(found, bytes):
        return json.dumps(found).encode(), {"Content-Type": "application/json"}
    if wanted is None:
        return found, {}
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    data = found[int(first) : int(last) + 1]
    return data, {"Content-Range": f"bytes {first}-{int(first) + len(data) - 1}/{len(found)}"}
