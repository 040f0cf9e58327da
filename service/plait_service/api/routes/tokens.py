"""Tokens, who one's own is, and the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from plait.errors import PlaitError
from plait.jobs import NewToken, Role, Token, TokenRequest
from plait_service.api.access import Admin, Reader
from plait_service.api.audit import MOST_IN_PAGE, AuditPage, address_of
from plait_service.api.problems import responses
from plait_service.api.state import Has
from plait_service.jobs.tokens import TOKEN_ID

router = APIRouter(prefix="/v1", tags=["tokens"])

TokenId = Annotated[str, Path(pattern=TOKEN_ID, examples=["t-019acf3b2c410a1b2c3d4e5f"])]


class TokenList(BaseModel):
    """All tokens, newest first, also those that are revoked or have expired."""

    tokens: list[Token]


class Me(BaseModel):
    """Who a token is: what it may do, and where."""

    name: str
    team: str
    roles: list[Role]
    read: list[str]
    write: list[str]


@router.post("/tokens", status_code=201, response_model=NewToken, responses=responses(413, 422))
def create(body: TokenRequest, who: Admin, has: Has, request: Request) -> NewToken:
    """Create a token. The answer alone holds its secret: it is not kept, and cannot be asked for again."""
    address = address_of(request)
    try:
        token = has.tokens.create(body)
    except PlaitError as error:
        has.audit.tell(who, "token.create", body.name, error.kind, address)
        raise
    has.audit.tell(who, "token.create", f"{token.id} {token.name}", "ok", address)
    return token


@router.get("/tokens", response_model=TokenList, responses=responses())
def list_tokens(_who: Admin, has: Has) -> TokenList:
    """All tokens of all teams, without their secrets."""
    return TokenList(tokens=has.tokens.list())


@router.delete("/tokens/{token_id}", response_model=Token, responses=responses(404, 422))
def revoke(token_id: TokenId, who: Admin, has: Has, request: Request) -> Token:
    """Revoke a token, for good: it stays in the list, and its name stays taken. Idempotent."""
    address = address_of(request)
    try:
        token = has.tokens.revoke(token_id)
    except PlaitError as error:
        has.audit.tell(who, "token.revoke", token_id, error.kind, address)
        raise
    has.audit.tell(who, "token.revoke", f"{token.id} {token.name}", "ok", address)
    return token


@router.get("/me", response_model=Me, responses=responses())
def me(who: Reader) -> Me:
    """Who the token is, what it may do, and where."""
    return Me.model_validate(
        {
            "name": who.name,
            "team": who.team,
            "roles": sorted(who.roles),
            "read": [str(uri) for uri in who.read],
            "write": [str(uri) for uri in who.write],
        }
    )


@router.get("/audit", response_model=AuditPage, responses=responses(422))
def audit(
    _who: Admin,
    has: Has,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_PAGE)] = 50,
) -> AuditPage:
    """Who did what, newest first: jobs, schedules and tokens, and what was refused."""
    return has.audit.list(cursor, limit)
