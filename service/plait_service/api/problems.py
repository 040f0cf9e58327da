"""Errors as answers: one form, and a status that follows from the kind."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from plait.errors import (
    InputError,
    InternalError,
    NotFound,
    PlaitError,
    PlanRejected,
    ServiceUnavailable,
    SpecInvalid,
    WrongState,
)

LOGGER: Final = logging.getLogger("plait.service")
STATUSES: Final[Mapping[str, int]] = {
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "wrong-state": 409,
    "idempotency-conflict": 409,
    "output-exists": 409,
    "output-claimed": 409,
    "too-large": 413,
    "too-many-requests": 429,
    "service-unavailable": 503,
    "store-unavailable": 503,
    "cluster-unavailable": 503,
}
_RETRY_AFTER: Final = 1


class ErrorBody(BaseModel):
    """What is inside of ``error``; ``kind`` never changes its meaning."""

    kind: str
    message: str
    retryable: bool
    where: str | None = None
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    problems: list[dict[str, Any]] | None = None


class ErrorAnswer(BaseModel):
    """An answer that is no success."""

    error: ErrorBody


_SAID: Final = {
    401: "No token, or none that is valid",
    403: "The token does not allow this",
    404: "No such thing, or another team's",
    405: "Not with this method",
    409: "Not as things are now",
    413: "The body is too large",
    422: "The request, or the spec in it, is wrong: all problems together",
    429: "Too many requests; see Retry-After",
    503: "Not now; worth a retry",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route: these answers, and those that every route may give."""
    every = (401, 403, 429, 503, *statuses)
    return {status: {"model": ErrorAnswer, "description": _SAID[status]} for status in sorted(set(every))}


def status_of(error: PlaitError) -> int:
    """Of an answer that says this error."""
    if error.kind in STATUSES:
        return STATUSES[error.kind]
    return 422 if isinstance(error, InputError | PlanRejected) else 500


def answer(error: PlaitError, status: int | None = None) -> JSONResponse:
    """The error as an answer."""
    status = status_of(error) if status is None else status
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after", _RETRY_AFTER)))
    return JSONResponse({"error": error.to_json()}, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Have an app answer with errors of this form, whatever is raised."""

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PlaitError)
        if status_of(error) >= 500 and isinstance(error, InternalError):
            LOGGER.error("%s", error, exc_info=error)
        return answer(error)

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        places = [each["loc"] for each in error.errors()]
        if any(place[0] == "path" for place in places):  # no thing has such an id
            return answer(NotFound("no such thing"))
        return answer(PlanRejected([_problem(each) for each in error.errors()]))

    async def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return answer(NotFound("no such route"))
        if error.status_code == 405:
            return answer(WrongState("this route does not know the method"), status=405)
        if error.status_code == 400:
            return answer(SpecInvalid("the body of the request", expected="JSON, in UTF-8"))
        return answer(SpecInvalid(str(error.detail)), status=error.status_code)

    async def database(_request: Request, error: Exception) -> JSONResponse:
        LOGGER.warning("the database does not answer: %s", type(error).__name__)
        return answer(ServiceUnavailable("the service's database does not answer"))

    async def unforeseen(_request: Request, error: Exception) -> JSONResponse:
        LOGGER.error("an unforeseen error", exc_info=error)
        return answer(InternalError("an unforeseen error", found=type(error).__name__), status=500)

    app.add_exception_handler(PlaitError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OperationalError, database)
    app.add_exception_handler(PoolTimeout, database)
    app.add_exception_handler(Exception, unforeseen)


def _problem(error: Mapping[str, Any]) -> SpecInvalid:
    """Of what pydantic found, without the value: it may be a secret in the wrong place."""
    place = ".".join(str(part) for part in error.get("loc", ()))
    return SpecInvalid("the request", where=place or None, expected=str(error.get("msg", "something else")))
