"""Who did what, from where, and whether it was allowed."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import BaseModel, Field
from sqlalchemy import select

from plait.errors import SpecInvalid
from plait.jobs import AuditEntry
from plait.uri import mask_secrets
from plait_service.api.principal import Principal
from plait_service.jobs.database import Database
from plait_service.jobs.records import now
from plait_service.jobs.tables import AuditRow

MOST_IN_PAGE: Final = 200
_MOST_TARGET: Final = 1000


class AuditPage(BaseModel):
    """Some entries, newest first.

    Args:
        next: the cursor of the next page; None at the end.
    """

    entries: list[AuditEntry]
    next: str | None = Field(default=None, description="The cursor of the next page; null at the end")


class Audit:
    """The audit log of one database. Entries are added, and never changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tell(self, principal: Principal, action: str, target: str, outcome: str, address: str | None) -> None:
        """Add an entry. Cost: a transaction.

        Args:
            action: such as ``job.submit``.
            target: what it was done to: an id, a name or a place; passwords of URIs are masked.
            outcome: ``ok``, or the kind of the error.
            address: of the client.
        """
        with self._database.begin() as session:
            session.add(entry(principal, action, target, outcome, address))

    def list(self, cursor: str | None = None, limit: int = 50) -> AuditPage:
        """Some entries, newest first.

        Args:
            cursor: ``next`` of the page before.

        Raises:
            SpecInvalid: it is no such cursor.
        """
        limit = max(1, min(limit, MOST_IN_PAGE))
        wanted = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(AuditRow.id < _number(cursor))
        with self._database.read() as session:
            rows = session.scalars(wanted).all()
        page = [_to_entry(row) for row in rows[:limit]]
        return AuditPage(entries=page, next=str(page[-1].id) if len(rows) > limit else None)


def entry(principal: Principal, action: str, target: str, outcome: str, address: str | None) -> AuditRow:
    """What :meth:`Audit.tell` adds, for somebody's own transaction."""
    return AuditRow(
        time=now(),
        who=principal.name,
        team=principal.team,
        action=_plain(action, 32),
        target=_plain(mask_secrets(target), _MOST_TARGET),
        outcome=_plain(outcome, 64),
        address=None if address is None else _plain(address, 64),
    )


def address_of(request: Request) -> str | None:
    """Of the client, as far as the server knows it."""
    return None if request.client is None else request.client.host


def _plain(text: str, most: int) -> str:
    """In one line that every database takes and every terminal shows as it is."""
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise SpecInvalid("the cursor", expected="`next` of a page")
    return int(cursor)


def _to_entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        time=row.time,
        who=row.who,
        team=row.team,
        action=row.action,
        target=row.target,
        outcome=row.outcome,
        address=row.address,
    )
