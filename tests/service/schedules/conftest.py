"""What tests of schedules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.schedules.world import World, make_world
from tests.support.postgres import Postgres


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = make_world(tmp_path)
    yield found
    found.database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def world_of_each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """On a database of each kind."""
    url = ""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    found = make_world(tmp_path, url)
    yield found
    found.database.close()
