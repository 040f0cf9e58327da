"""Who sends a request, and whether they may: by a bearer token, or without one where that is allowed.

Without a token the service is for programs of this machine alone, and a browser is such a program: it also
runs what strangers wrote. So what comes without a token must name this machine as its host (a stranger's name
may be made to lead here), must not come from a page of another origin, and must not have been forwarded.

All of this is coroutines, which wait for the database where they need it: what is known needs no thread.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from plait.errors import Forbidden, Unauthenticated
from plait.jobs import Role
from plait_service.api.audit import address_of
from plait_service.api.principal import Principal, anonymous
from plait_service.api.settings import is_loopback
from plait_service.api.state import Has, Services

_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token, made by `plait token create`."
)
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+)(:[0-9]{1,5})?")
_HINT: Final = "Send `Authorization: Bearer TOKEN`; tokens are made with `plait token create`"

Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


async def caller(request: Request, given: Given, has: Has) -> Principal:
    """Whoever sends a request, with any role.

    Raises:
        Unauthenticated: no token, or none that is good, where one is needed.
        Forbidden: without a token, from a page of another origin.
        TooManyRequests: of this token, or of bad tokens from this address.
    """
    found = _anonymous(request) if _needs_no_token(request, has) else await _by_token(given, has)
    if found is None:
        has.rates.count_failure(address_of(request))
        raise Unauthenticated(
            "no token was given" if given is None else "the token is not valid, has expired or was revoked",
            hint=_HINT,
        )
    has.rates.count_request(found.name)
    return found


Caller = Annotated[Principal, Depends(caller)]


async def reader(who: Caller, has: Has, request: Request) -> Principal:
    """Who may see jobs; raises ``Forbidden`` otherwise."""
    return await _having("read", who, has, request)


async def submitter(who: Caller, has: Has, request: Request) -> Principal:
    """Who may submit and cancel jobs; raises ``Forbidden`` otherwise."""
    return await _having("submit", who, has, request)


async def admin(who: Caller, has: Has, request: Request) -> Principal:
    """Who may make tokens and sees all teams; raises ``Forbidden`` otherwise."""
    return await _having("admin", who, has, request)


Reader = Annotated[Principal, Depends(reader)]
Submitter = Annotated[Principal, Depends(submitter)]
Admin = Annotated[Principal, Depends(admin)]


async def _having(role: Role, who: Principal, has: Services, request: Request) -> Principal:
    if who.has(role):
        return who
    target = f"{request.method} {request.url.path}"
    await asyncio.to_thread(has.audit.tell, who, "access", target, Forbidden.kind, address_of(request))
    raise Forbidden(
        f"this needs the role {role}", where=who.name, found=", ".join(sorted(who.roles)) or "no role"
    )


async def _by_token(given: HTTPAuthorizationCredentials | None, has: Services) -> Principal | None:
    if given is None:
        return None
    known = has.tokens.find_remembered(given.credentials)
    return known or await asyncio.to_thread(has.tokens.find, given.credentials)


def _needs_no_token(request: Request, has: Services) -> bool:
    """A token that is sent is looked at also where none is needed: a bad one is told at once."""
    return has.settings.anonymous and "authorization" not in request.headers


def _anonymous(request: Request) -> Principal | None:
    hosts = request.headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match[1]) or any(name in request.headers for name in _FORWARDED):
        return None
    origins = request.headers.getlist("origin")
    own = f"{request.url.scheme}://{hosts[0]}".lower()
    if any(origin.lower() != own for origin in origins) or _from_elsewhere(request):
        raise Forbidden("without a token, pages of other origins are not served", hint=_HINT)
    return anonymous()


def _from_elsewhere(request: Request) -> bool:
    """What browsers say of a request for which they send no origin."""
    return request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
