"""What tests of both clients share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.both_clients import driven
from tests.support.scripted_service import TOKEN, ScriptedService, scripted


@pytest.fixture(autouse=True)
def _no_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PLAIT_URL", "PLAIT_TOKEN", "PLAIT_PROFILE", "PLAIT_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of one kind."""
    loop, made = asyncio.new_event_loop(), []

    def client(url: str, token: str | None = None, **options: Any) -> Any:
        made.append(driven(request.param, url, token, loop=loop, **options))
        return made[-1]

    yield client
    for each in made:
        each.close()
    loop.close()


@pytest.fixture
def client(make: Callable[..., Any], service: ScriptedService) -> Any:
    return make(service.url, TOKEN)
