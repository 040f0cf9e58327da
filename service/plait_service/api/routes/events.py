"""Events of jobs, as they happen (server-sent events)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from plait_service.api.access import Reader
from plait_service.api.problems import responses
from plait_service.api.routes.jobs import JobId
from plait_service.api.state import Has

router = APIRouter(prefix="/v1", tags=["jobs"])
_PING: Final = 15
_RETRY: Final = 1000
"""Milliseconds after which a browser connects again."""

_EVENT: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
    "required": ["event", "data"],
}


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        **responses(404, 422),
        200: {
            "content": {"text/event-stream": {"itemSchema": _EVENT}},
            "description": "`id`, `event` (its kind), `data` (a JobEvent); last comes `event: end`.",
        },
    },
)
async def events(
    job_id: JobId,
    who: Reader,
    has: Has,
    after: Annotated[int, Query(ge=0, le=2**53, description="The last event that was seen")] = 0,
    last: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=2**53, description="As browsers say it")
    ] = None,
) -> EventSourceResponse:
    """All events of a job, those of the past first; ends when the job does. Go on with Last-Event-ID."""
    await asyncio.to_thread(has.jobs.get, job_id, who.sees)
    seen = max(after, last or 0)

    async def told() -> AsyncIterator[ServerSentEvent]:
        async for event in has.feeds.watch(job_id, seen):
            yield ServerSentEvent(
                data=event.model_dump_json(), event=event.kind, id=str(event.id), retry=_RETRY
            )
        if not has.feeds.is_ended:
            yield ServerSentEvent(data="{}", event="end")

    return EventSourceResponse(told(), ping=_PING)
