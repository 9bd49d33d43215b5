"""A stand-in for the hub with its three routes: a repository's info, its tree, and its files. Says what it is told to, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@dataclass
class Repository:
    """What the stand-in has under OWNER/name. `token`: required where given. `status`: the answer to everything."""

    files: dict[str, bytes]
    token: str | None = None
    status: int | None = None


class StandIn:
    """Repositories by name (without their owner), and what was asked for."""

    def __init__(self, **repositories: Repository) -> None:
        self.repositories = repositories
        self.asked: list[str] = []


@contextmanager
def serve(stand_in: StandIn, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve on a free port of one of this machine's addresses; gives the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            stand_in.asked.append(f"{self.command} {self.path}")
            status, headers, content = _route(stand_in, self.path, self.headers.get("authorization"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _route(stand_in: StandIn, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
    parts = path.split("?")[0].removeprefix("/api/models").removeprefix("/api/datasets").removeprefix("/datasets").strip("/").split("/")
    repository = stand_in.repositories.get(parts[1]) if parts[0] == "OWNER" and len(parts) > 1 else None
    if repository is None:
        return 404, {"x-error-code": "RepoNotFound"}, b"{}"
    if repository.status is not None:
        return repository.status, {}, b"{}"
    if repository.token is not None and authorization != f"Bearer {repository.token}":
        return 401, {}, b"{}"
    match parts[2:]:
        case [] | ["revision", "main" | "v1"]:
            return 200, _JSON, json.dumps({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": []}).encode()
        case ["tree", *_]:
            tree = [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in repository.files.items()]
            return 200, _JSON, json.dumps(tree).encode()
        case ["resolve", _, *name] if "/".join(name) in repository.files:
            data = repository.files["/".join(name)]
            return 200, {"etag": f'"{_oid(data)}"', "x-repo-commit": COMMIT}, data
    return 404, {"x-error-code": "RevisionNotFound"}, b"{}"


_JSON = {"content-type": "application/json"}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
