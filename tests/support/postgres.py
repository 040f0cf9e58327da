"""A PostgreSQL server of Debian's packages, on a socket in a folder of its own, one for each test process."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

VERSIONS = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """Where initdb and postgres are; None if they are not installed."""
    found = sorted(VERSIONS.glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """A server until ``close()``: no network, no password, nothing kept on the disk for long."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="plait-pg-", dir="/tmp"))
        self._user = None
        if os.geteuid() == 0:  # it refuses to be root's
            self._user = "postgres" if _has_user("postgres") else "nobody"
            shutil.chown(self._folder, self._user)
        self._numbers = itertools.count()
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-U", "plait", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", data, "-w", "-l", self._folder / "log", "-o", options, "start")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self._folder)

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", self._folder, "-U", "plait", name)
        return f"postgresql+psycopg://plait@/{name}?host={self._folder}"

    def close(self) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(found)
    try:
        yield server
    finally:
        server.close()
