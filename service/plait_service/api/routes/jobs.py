"""Jobs: submit, list, look, cancel, retry, logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from plait.errors import NotFound, PlaitError, SpecInvalid
from plait.jobs import JOB_ID, LABEL, MAX_LABELS, Job, JobKind, JobPage, JobRequest, JobState
from plait.uri import UriError, parse_uri
from plait_service.api.access import Reader, Submitter
from plait_service.api.answers import answer_of
from plait_service.api.audit import address_of, entry
from plait_service.api.logs import LogResponse, Unfinished, follow, tail_of
from plait_service.api.principal import Principal
from plait_service.api.problems import responses
from plait_service.api.state import Has, Services
from plait_service.api.submitting import submission_of
from plait_service.jobs.records import MOST_IN_PAGE, Filter

router = APIRouter(prefix="/v1", tags=["jobs"])

JobId = Annotated[str, Path(pattern=JOB_ID, examples=["j-019acf3b2c410a1b2c3d4e5f"])]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and body give the same job again; another body is an error.",
    ),
]
_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": Job, "description": "The job that this Idempotency-Key made before"},
    202: {
        "model": Job,
        "description": "The job, which waits",
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
}


@router.post(
    "/jobs", status_code=202, response_model=Job, responses={**responses(409, 413, 422), **_ACCEPTED}
)
def submit(body: JobRequest, who: Submitter, has: Has, request: Request, key: Key = None) -> Response:
    """Submit a merge. It is validated and authorised now, and planned as its first step."""
    return _submit(body, who, has, request, key, JobKind.MERGE)


@router.post(
    "/plans", status_code=202, response_model=Job, responses={**responses(409, 413, 422), **_ACCEPTED}
)
def plan(body: JobRequest, who: Submitter, has: Has, request: Request, key: Key = None) -> Response:
    """Submit a dry run: a job that only plans, and ends with the plan or with all of its problems."""
    return _submit(body, who, has, request, key, JobKind.PLAN)


def _submit(
    body: JobRequest,
    who: Principal,
    has: Services,
    request: Request,
    key: str | None,
    kind: JobKind,
) -> Response:
    address = address_of(request)
    try:
        submission = submission_of(body, who, has.settings, kind=kind, key=key)
        job, is_new = has.jobs.submit(
            submission,
            lambda session, made: session.add(entry(who, "job.submit", made, "ok", address)),
        )
    except PlaitError as error:
        has.audit.tell(who, "job.submit", str(body.spec.get("output", ""))[:500], error.kind, address)
        raise
    if is_new:
        has.runner.wake()
    place = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
    return answer_of(job, 202 if is_new else 200, {"Location": place})


@router.get("/jobs", response_model=JobPage, responses=responses(422))
def list_jobs(
    who: Reader,
    has: Has,
    state: Annotated[list[JobState] | None, Query(description="In one of these")] = None,
    label: Annotated[
        list[str] | None,
        Query(description="KEY=VALUE; all of them", max_length=MAX_LABELS, examples=[["run=nightly"]]),
    ] = None,
    output: Annotated[str | None, Query(max_length=4096)] = None,
    schedule: Annotated[str | None, Query(max_length=32)] = None,
    after: Annotated[datetime | None, Query(description="Submitted at this moment or later")] = None,
    before: Annotated[datetime | None, Query(description="Submitted before")] = None,
    cursor: Annotated[str | None, Query(pattern=JOB_ID, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_PAGE)] = 50,
) -> Response:
    """Jobs of the token's team, newest first."""
    wanted = Filter(
        team=who.sees,
        states=state or (),
        labels=_labels(label or ()),
        output=None if output is None else _canonical(output),
        schedule=schedule,
        after=_utc(after),
        before=_utc(before),
    )
    return answer_of(has.jobs.page(wanted, cursor=cursor, limit=limit))


@router.get("/jobs/{job_id}", response_model=Job, responses=responses(404, 422))
def get_job(job_id: JobId, who: Reader, has: Has) -> Response:
    """A job as it is now."""
    return answer_of(has.jobs.get(job_id, who.sees))


@router.post("/jobs/{job_id}/cancel", response_model=Job, responses=responses(404, 409, 422))
def cancel(job_id: JobId, who: Submitter, has: Has, request: Request) -> Job:
    """Cancel a job: at once if it waits; else its driver is asked to stop. What is finished is kept."""
    job = has.jobs.cancel(job_id, who.sees)
    has.audit.tell(who, "job.cancel", job_id, "ok", address_of(request))
    has.feeds.changed(job_id)
    has.runner.wake()
    return job


@router.post("/jobs/{job_id}/retry", response_model=Job, responses=responses(404, 409, 422))
def retry(job_id: JobId, who: Submitter, has: Has, request: Request) -> Job:
    """Queue a job again that did not succeed; it carries on from what is finished."""
    job = has.jobs.retry(job_id, who.sees)
    has.audit.tell(who, "job.retry", job_id, "ok", address_of(request))
    has.feeds.changed(job_id)
    has.runner.wake()
    return job


@router.get(
    "/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    responses={
        **responses(404, 422),
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "What the driver wrote",
        },
    },
)
async def logs(
    job_id: JobId,
    who: Reader,
    has: Has,
    attempt: Annotated[int | None, Query(ge=1, le=10_000, description="Default: the last")] = None,
    tail: Annotated[int | None, Query(ge=1, le=100_000, description="Lines, from the end")] = None,
    follow_: Annotated[bool, Query(alias="follow", description="Go on until the attempt is over")] = False,
) -> StreamingResponse:
    """What a job's driver wrote: events as lines of JSON, and what libraries print."""
    job = await asyncio.to_thread(has.jobs.get, job_id, who.sees)
    number = len(job.attempts) if attempt is None else attempt
    found = next((each for each in job.attempts if each.number == number), None)
    if found is None:
        raise NotFound(
            "the job has no such attempt",
            where=job_id,
            found=str(number),
            hint="Its driver may not have begun",
        )
    backend = has.runner.backend

    async def written() -> AsyncIterator[bytes]:
        offset = 0
        if tail is not None:
            data = await asyncio.to_thread(tail_of, backend, found.handle, tail)
            yield data.text
            offset = data.end
        async for piece in follow(has.jobs, backend, job_id, found, offset, stay=follow_):
            yield piece
            if has.feeds.is_ended:
                raise Unfinished

    return LogResponse(written(), media_type="text/plain; charset=utf-8")


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(LABEL, key) or not re.fullmatch(LABEL, value):
            raise SpecInvalid("the label", expected="KEY=VALUE", found=repr(pair[:100]))
        found[key] = value
    return found


def _canonical(output: str) -> str:
    try:
        return str(parse_uri(output))
    except UriError as error:
        raise SpecInvalid("the output", found=error.reason) from None


def _utc(moment: datetime | None) -> datetime | None:
    """A moment without a time zone is in UTC."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
