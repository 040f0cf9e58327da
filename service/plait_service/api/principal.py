"""Who asks: a token's name, team, roles and places; or nobody in particular, on this machine alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plait.jobs import Role
from plait.uri import Uri

ANONYMOUS: Final = "anonymous"
"""The name of whoever needs no token; no token has it."""
LOCAL_TEAM: Final = "local"

_GIVEN_BY: Final[Mapping[Role, frozenset[str]]] = {
    "read": frozenset({"read", "submit", "admin"}),
    "submit": frozenset({"submit", "admin"}),
    "admin": frozenset({"admin"}),
}


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whoever sends a request.

    Args:
        name: of the token.
        team: whose jobs it sees.
        roles: ``admin`` includes ``submit``, which includes ``read``.
        read, write: canonical prefixes of the places that its specs may read from and write to.
        anonymous: it came without a token; every place of the allowed schemes is open to it.
    """

    name: str
    team: str
    roles: frozenset[str]
    read: tuple[Uri, ...] = ()
    write: tuple[Uri, ...] = ()
    anonymous: bool = False

    @property
    def sees(self) -> str | None:
        """The team whose jobs and schedules it sees; None for those of all teams."""
        return None if self.has("admin") else self.team

    def has(self, role: Role) -> bool:
        """Whether one of its roles is this one or includes it."""
        return not self.roles.isdisjoint(_GIVEN_BY[role])


def anonymous() -> Principal:
    """Who has no token, where none is needed."""
    return Principal(
        name=ANONYMOUS, team=LOCAL_TEAM, roles=frozenset({"read", "submit", "admin"}), anonymous=True
    )
