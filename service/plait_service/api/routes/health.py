"""Whether the service is well, and what it counts."""

from __future__ import annotations

import time
from typing import Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from plait.errors import ServiceUnavailable
from plait_service.api.access import Reader
from plait_service.api.problems import responses
from plait_service.api.state import Has

router = APIRouter(tags=["health"])
_LONG: Final = 60.0
"""Seconds after which a runner that did not go round counts as stuck."""


class Health(BaseModel):
    """The service answers."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process answers: restart it if it does not."""
    return Health()


@router.get("/readyz", response_model=Health, responses={503: responses()[503]})
def readyz(has: Has) -> Health:
    """The database answers, and jobs are looked after: send no requests if not."""
    has.database.check()
    if time.monotonic() - has.runner.beat > _LONG:
        raise ServiceUnavailable("the runner does not go round")
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **responses(),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus"},
    },
)
def metrics(_who: Reader, has: Has) -> Response:
    """Counts and times, for Prometheus."""
    return has.metrics.answer(has.jobs.counts(), has.feeds.watchers)
