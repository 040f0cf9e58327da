"""The database of the service: an engine, transactions, and its tables brought up to date."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from plait.errors import SpecInvalid, StoreUnavailable

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_BUSY: Final = 30_000
"""Milliseconds that SQLite waits for another writer."""
_LOCK: Final = 0x706C616974
"""Which of PostgreSQL's advisory locks: one migrates at a time, and the lock ends with its transaction."""


class Database:
    """Sessions on one database.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql+psycopg://...``.

    Raises:
        SpecInvalid: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = _engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise SpecInvalid(
                "the database's URL",
                expected="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME",
                found=type(error).__name__,
            ) from None
        self._readers = sessionmaker(self.engine, expire_on_commit=False)
        # SQLite's own wait for a writer sleeps longer and longer, and whoever came later may go first.
        is_sqlite = self.engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager[object] = threading.RLock() if is_sqlite else nullcontext()
        writing = self.engine.execution_options(plait_writes=True)
        self._writers = sessionmaker(writing, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction that may write: all of it happens, or nothing."""
        with self._turn, self._writers.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with self._readers() as session:
            yield session

    def upgrade(self) -> None:
        """Make the tables, or bring them to this version's form; idempotent.

        Raises:
            StoreUnavailable: the database is not reached.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self.engine.connect() as connection:
                if self.engine.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        except OperationalError as error:
            raise unreachable(error) from error

    def check(self) -> None:
        """Raise ``StoreUnavailable`` if it does not answer."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError as error:
            raise unreachable(error) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def unreachable(error: OperationalError) -> StoreUnavailable:
    """Without the URL, which may hold a password."""
    return StoreUnavailable("the service's database", found=type(error.orig).__name__)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database not in (None, "", ":memory:"):
            _make_file(Path(parsed.database))
        # Statements wait for each other in SQLite anyway; a few connections let readers read meanwhile.
        engine = create_engine(parsed, pool_size=8, max_overflow=24, connect_args={"timeout": _BUSY / 1000})
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(parsed, pool_size=8, max_overflow=24, pool_pre_ping=True)


def _make_file(path: Path) -> None:
    """For this user alone, as are the files that SQLite makes beside it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable("the service's database", where=str(path), found=error.strerror) from error


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Readers beside a writer, and what is committed is on the disk."""
    connection.isolation_level = None  # BEGIN is ours: the driver's would come too late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    """A transaction that will write takes the lock at once: one that took it later could fail for good."""
    kind = "IMMEDIATE" if connection.get_execution_options().get("plait_writes") else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {kind}")
