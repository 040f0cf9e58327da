"""The service's database: what is kept of jobs, tokens, schedules, and of who did what.

SQLite or PostgreSQL; nothing here is particular to either. Changes of these tables need a migration
(``migrations/versions``); a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

SerialKey = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself in a column of its own INTEGER alone."""


class UtcTime(TypeDecorator[datetime]):
    """A moment, as microseconds since 1970: the same on every database, and it sorts."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Moments have a time zone; another one than UTC is converted."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """In UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Base(DeclarativeBase):
    """Of all tables. Constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON,
    }


class JobRow(Base):
    """A job.

    ``id`` begins with the time, so that it also says which of two is older. ``places`` are the
    canonical output and whatever else no two jobs may write at once. ``not_before`` delays an attempt
    after one that failed. ``body`` is a hash of what was submitted with an idempotency key.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    team: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]]
    output: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, Any]]
    priority: Mapped[int]
    overwrite: Mapped[bool] = mapped_column(Boolean)
    attempts_allowed: Mapped[int]
    attempt: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime]
    changed: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    plan: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body: Mapped[str | None] = mapped_column(String(64))
    schedule: Mapped[str | None] = mapped_column(String(32))
    last_event: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        UniqueConstraint("team", "idempotency_key"),
        Index(None, "team", "id"),
        Index(None, "state", "id"),
        Index(None, "team", "state", "id"),
        Index(None, "output", "id"),
        Index(None, "schedule", "id"),
    )


class LabelRow(Base):
    """A label of a job, to find it by."""

    __tablename__ = "job_labels"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(64), primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)

    __table_args__ = (Index(None, "job"),)


class AttemptRow(Base):
    """A driver of a job. ``offset`` is how far its log was read; ``partial`` marks what to tell it from."""

    __tablename__ = "attempts"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    handle: Mapped[str] = mapped_column(String(64))
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    said: Mapped[dict[str, Any] | None]


class EventRow(Base):
    """Something that happened to a job; numbered from 1 in each."""

    __tablename__ = "events"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]


class TokenRow(Base):
    """A token; of its secret only a hash. Roles and prefixes are JSON lists."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    team: Mapped[str] = mapped_column(String(64))
    roles: Mapped[list[str]]
    read: Mapped[list[str]]
    write: Mapped[list[str]]
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime]
    expires: Mapped[datetime | None]
    revoked: Mapped[datetime | None]


class AuditRow(Base):
    """Who did what, and whether it was allowed."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(SerialKey, primary_key=True, autoincrement=True)
    time: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(64))
    team: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    target: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (Index(None, "time"),)


class ScheduleRow(Base):
    """When to submit what; see :mod:`plait.schedules`.

    ``read``, ``write`` and ``anonymous`` are those of whoever changed it last. Ticks up to ``considered``
    have rows, or were left out; ``due`` is the first one after it.
    """

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    team: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(64))
    read: Mapped[list[str]]
    write: Mapped[list[str]]
    settings: Mapped[dict[str, Any]]
    anonymous: Mapped[bool] = mapped_column(Boolean, default=False)
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    created: Mapped[datetime]
    changed: Mapped[datetime]
    considered: Mapped[datetime]
    due: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("team", "name"), Index(None, "paused", "due"))


class TickRow(Base):
    """A moment at which a schedule was due: what became of it.

    ``noticed`` is when the service saw that it was due. ``look`` is when to see to it again: for sub-models,
    for a job before it, or to move the pointer, as long as ``pointer`` is "due".
    """

    __tablename__ = "ticks"

    schedule: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True)
    due: Mapped[datetime] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    manual: Mapped[bool] = mapped_column(Boolean, default=False)
    noticed: Mapped[datetime]
    changed: Mapped[datetime]
    look: Mapped[datetime]
    job: Mapped[str | None] = mapped_column(String(32))
    inputs: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    pointer: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (
        Index(None, "state", "look"),
        Index(None, "pointer", "look"),
        Index(None, "schedule", "inputs"),
        Index(None, "schedule", "state"),
    )
