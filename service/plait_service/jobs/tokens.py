"""Bearer tokens: made and revoked by an admin, found by their secret, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from plait.errors import NotFound, SpecInvalid
from plait.jobs import NewToken, Token, TokenRequest
from plait.uri import parse_uri
from plait_service.api.places import prefixes
from plait_service.api.principal import ANONYMOUS, Principal
from plait_service.jobs.database import Database
from plait_service.jobs.records import new_id, now
from plait_service.jobs.tables import TokenRow

TOKEN_ID: Final = r"^t-[0-9a-f]{24}$"
_SECRET: Final = re.compile(r"plait_[A-Za-z0-9_-]{43}")
_REMEMBERED: Final = 5.0
_MOST_REMEMBERED: Final = 1024


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A token that was good a moment ago; ``until`` is by the monotonic clock."""

    principal: Principal
    expires: datetime | None
    until: float


class Tokens:
    """The tokens of one database.

    A token that was found is remembered for some seconds: so long it still works after another process has
    revoked it. What is revoked through this object ends at once.

    Args:
        remember: those seconds.
    """

    def __init__(self, database: Database, *, remember: float = _REMEMBERED) -> None:
        self._database = database
        self._remember = remember
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Found] = OrderedDict()
        self._revocations = 0

    def create(self, request: TokenRequest) -> NewToken:
        """A new token. Its secret has 256 random bits and is told this once.

        Raises:
            SpecInvalid: the name is taken, or a prefix is none.
        """
        if request.name == ANONYMOUS:
            raise SpecInvalid("this name is for whoever has no token", where=request.name)
        secret = f"plait_{secrets.token_urlsafe(32)}"
        moment = now()
        row = TokenRow(
            id=new_id("t"),
            name=request.name,
            team=request.team or request.name,
            roles=list(dict.fromkeys(request.roles)),
            read=[str(uri) for uri in prefixes(request.read)],
            write=[str(uri) for uri in prefixes(request.write)],
            secret_hash=_hash(secret),
            created=moment,
            expires=None if request.days is None else moment + timedelta(days=request.days),
        )
        try:
            with self._database.begin() as session:
                session.add(row)
        except IntegrityError:
            raise SpecInvalid(
                "a token has this name",
                where=request.name,
                hint="Choose another; a revoked token keeps its name, so that the audit log stays clear",
            ) from None
        return NewToken(**_to_token(row).model_dump(), secret=secret)

    def list(self) -> list[Token]:
        """All tokens, newest first, also those that are revoked or have expired."""
        with self._database.read() as session:
            rows = session.scalars(select(TokenRow).order_by(TokenRow.id.desc()))
            return [_to_token(row) for row in rows]

    def revoke(self, number: str) -> Token:
        """End a token, at once and for good; idempotent.

        Raises:
            NotFound: there is none.
        """
        if not re.fullmatch(TOKEN_ID, number):
            raise NotFound("no such token", where=number)
        with self._database.begin() as session:
            row = session.get(TokenRow, number, with_for_update=True)
            if row is None:
                raise NotFound("no such token", where=number)
            row.revoked = row.revoked or now()
        with self._lock:  # after the commit: whoever read the row before it notices, and remembers nothing
            self._revocations += 1
            self._known.clear()
        return _to_token(row)

    def find(self, secret: str) -> Principal | None:
        """Whose secret this is; None if it is nobody's, or of a token that has expired or was revoked.

        Cost: a query by the hash of the secret, once in some seconds for each token.
        """
        if not _SECRET.fullmatch(secret):
            return None
        hashed = _hash(secret)
        with self._lock:
            revocations = self._revocations
        found = self._remembered(hashed)
        if found is None:
            found = self._look_up(hashed)
            if found is None:
                return None
            self._note(hashed, found, revocations)
        return _while_valid(found)

    def find_remembered(self, secret: str) -> Principal | None:
        """What :meth:`find` knows without asking the database; None says nothing."""
        found = self._remembered(_hash(secret))
        return None if found is None else _while_valid(found)

    def _remembered(self, hashed: str) -> _Found | None:
        with self._lock:
            found = self._known.get(hashed)
        return None if found is None or time.monotonic() >= found.until else found

    def _look_up(self, hashed: str) -> _Found | None:
        until = time.monotonic() + self._remember
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.secret_hash == hashed))
        if row is None or row.revoked is not None:
            return None
        principal = Principal(
            name=row.name,
            team=row.team,
            roles=frozenset(row.roles),
            read=tuple(map(parse_uri, row.read)),
            write=tuple(map(parse_uri, row.write)),
        )
        return _Found(principal=principal, expires=row.expires, until=until)

    def _note(self, hashed: str, found: _Found, revocations: int) -> None:
        with self._lock:
            if revocations != self._revocations:
                return
            self._known[hashed] = found
            self._known.move_to_end(hashed)
            if len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)


def _while_valid(found: _Found) -> Principal | None:
    return None if found.expires is not None and now() >= found.expires else found.principal


def _hash(secret: str) -> str:
    """Unsalted and fast is enough: a secret of 256 random bits is in no dictionary."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _to_token(row: TokenRow) -> Token:
    return Token.model_validate(
        {name: getattr(row, name) for name in Token.model_fields},
    )
