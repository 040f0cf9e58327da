"""Schedules: create, change, pause, run now, and what became of their ticks."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Query, Request, Response

from plait.errors import PlaitError
from plait.schedules import SCHEDULE_ID, Schedule, ScheduleList, ScheduleRequest, Tick, TickPage
from plait_service.api.access import Reader, Submitter
from plait_service.api.audit import address_of
from plait_service.api.principal import Principal
from plait_service.api.problems import responses
from plait_service.api.state import Has, Services
from plait_service.schedules.records import MOST_IN_PAGE, Schedules

router = APIRouter(prefix="/v1", tags=["schedules"])

ScheduleId = Annotated[str, Path(pattern=SCHEDULE_ID, examples=["s-019acf3b2c410a1b2c3d4e5f"])]
_SPEC: Final = {
    "models": [{"glob": "s3://runs/{date - 1d}/order-*"}],
    "base": "s3://models/llama-2-7b",
    "method": {"name": "select", "resample": 4},
    "output": "s3://models/merged/{date}",
}
_EXAMPLES: Final[dict[str, Any]] = {
    "nightly": {
        "summary": "At half past two each night, what was trained the day before",
        "value": {
            "name": "nightly",
            "cron": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "spec": _SPEC,
            "latest": "s3://models/merged/latest.json",
        },
    },
    "when-ready": {
        "summary": "Once five sub-models are there; if they are not at eight, the service warns",
        "value": {
            "name": "when-ready",
            "cron": "0 2 * * MON-FRI",
            "timezone": "America/New_York",
            "spec": _SPEC,
            "ready": {
                "glob": "s3://runs/{date - 1d}/order-*",
                "count": 5,
                "marker": "_SUCCESS",
                "every": "5m",
                "deadline": "6h",
            },
            "missed": "run-all",
        },
    },
}
Settings = Annotated[ScheduleRequest, Body(openapi_examples=_EXAMPLES)]


@router.post("/schedules", status_code=201, response_model=Schedule, responses=responses(409, 413, 422))
def create(body: Settings, who: Submitter, has: Has, request: Request, response: Response) -> Schedule:
    """Create a schedule. Its spec is validated and authorised now, with the dates of its next tick."""
    try:
        made = Schedules(has.database).create(body, who, has.settings)
    except PlaitError as error:
        has.audit.tell(who, "schedule.create", body.name, error.kind, address_of(request))
        raise
    _changed(has, who, "create", made.id, request)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/v1/schedules/{made.id}"
    return made


@router.get("/schedules", response_model=ScheduleList, responses=responses())
def list_schedules(who: Reader, has: Has) -> ScheduleList:
    """Schedules of the token's team, by name."""
    return ScheduleList(schedules=Schedules(has.database).all(who.sees))


@router.get("/schedules/{schedule_id}", response_model=Schedule, responses=responses(404, 422))
def get_schedule(schedule_id: ScheduleId, who: Reader, has: Has) -> Schedule:
    """A schedule as it is now."""
    return Schedules(has.database).get(schedule_id, who.sees)


@router.put("/schedules/{schedule_id}", response_model=Schedule, responses=responses(404, 409, 413, 422))
def replace(schedule_id: ScheduleId, body: Settings, who: Submitter, has: Has, request: Request) -> Schedule:
    """Give a schedule new settings, all of them. It acts with the places of this token from now on."""
    try:
        changed = Schedules(has.database).replace(schedule_id, body, who, has.settings)
    except PlaitError as error:
        has.audit.tell(who, "schedule.replace", schedule_id, error.kind, address_of(request))
        raise
    _changed(has, who, "replace", schedule_id, request)
    return changed


@router.delete("/schedules/{schedule_id}", response_model=Schedule, responses=responses(404, 422))
def delete(schedule_id: ScheduleId, who: Submitter, has: Has, request: Request) -> Schedule:
    """Forget a schedule and its history; the answer is how it was. Jobs that it submitted go on."""
    gone = Schedules(has.database).delete(schedule_id, who.sees)
    _changed(has, who, "delete", schedule_id, request)
    return gone


@router.post("/schedules/{schedule_id}/pause", response_model=Schedule, responses=responses(404, 422))
def pause(schedule_id: ScheduleId, who: Submitter, has: Has, request: Request) -> Schedule:
    """No ticks until it is resumed; none of those is caught up. A job that runs goes on."""
    paused = Schedules(has.database).pause(schedule_id, who.sees)
    _changed(has, who, "pause", schedule_id, request)
    return paused


@router.post("/schedules/{schedule_id}/resume", response_model=Schedule, responses=responses(404, 422))
def resume(schedule_id: ScheduleId, who: Submitter, has: Has, request: Request) -> Schedule:
    """Go on, from the next tick."""
    resumed = Schedules(has.database).resume(schedule_id, who.sees)
    _changed(has, who, "resume", schedule_id, request)
    return resumed


@router.post(
    "/schedules/{schedule_id}/run",
    status_code=202,
    response_model=Tick,
    responses=responses(404, 409, 422),
)
def run(schedule_id: ScheduleId, who: Submitter, has: Has, request: Request) -> Tick:
    """Run it now, as if it were due at this moment, also while paused; it waits for no sub-models."""
    tick = Schedules(has.database).run(schedule_id, who.sees)
    _changed(has, who, "run", schedule_id, request)
    return tick


@router.get("/schedules/{schedule_id}/ticks", response_model=TickPage, responses=responses(404, 422))
def ticks(
    schedule_id: ScheduleId,
    who: Reader,
    has: Has,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_PAGE)] = 50,
) -> TickPage:
    """What became of each tick, newest first."""
    return Schedules(has.database).ticks(schedule_id, who.sees, cursor=cursor, limit=limit)


def _changed(has: Services, who: Principal, action: str, schedule: str, request: Request) -> None:
    has.audit.tell(who, f"schedule.{action}", schedule, "ok", address_of(request))
    has.scheduler.wake()
