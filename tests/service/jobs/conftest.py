"""A database of each kind, empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plait_service.jobs.database import Database
from tests.support.postgres import Postgres
from tests.support.service_jobs import database_at


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        found = database_at(tmp_path)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        found = Database(server.new_database())
        found.upgrade()
    yield found
    found.close()
