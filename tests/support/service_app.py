"""The service in a thread of this process, with drivers that a test plays."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from plait.jobs import Role, TokenRequest
from plait_service.api.app import make_app
from plait_service.api.settings import Settings
from plait_service.api.state import Services
from tests.support.service_jobs import PlayedBackend
from tests.support.waiting import until

SPEC = {
    "models": ["s3://runs/a", "s3://runs/b"],
    "method": {"name": "average"},
    "output": "s3://models/merged/x",
}


@dataclass
class App:
    """A running service."""

    url: str
    services: Services
    backend: PlayedBackend
    _clients: list[httpx.Client] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def token(self, name: str, *roles: Role, team: str = "blue", **prefixes: list[str]) -> str:
        wanted = {"read": ["s3://runs/"], "write": ["s3://models/"], **prefixes}
        request = TokenRequest(name=name, team=team, roles=list(roles), **wanted)
        return self.services.tokens.create(request).secret

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client

    def as_member(self, *roles: Role, team: str = "blue") -> httpx.Client:
        roles = roles or ("submit",)
        return self.client(self.token(f"{team}-{next(self._numbers)}", *roles, team=team))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def running_app(folder: Path, **settings: Any) -> Iterator[App]:
    """A service on a free port, for the length of the block."""
    backend = PlayedBackend()
    app = make_app(Settings(folder=folder, port=0, **settings), backend)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    found = App(f"http://127.0.0.1:{port}", app.state.services, backend)
    try:
        yield found
    finally:
        found.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
