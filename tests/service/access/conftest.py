from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plait_service.jobs.database import Database
from tests.service.access.house import House


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'plait.db'}")
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)
