"""Every request that the service answers: how it is made, and what its answer is. Shared by both clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from plait.http import Call, part
from plait.jobs import AuditEntry, Job, JobPage, JobRequest, NewToken, Token, TokenRequest
from plait.schedules import Schedule, ScheduleRequest, Tick

T = TypeVar("T")
N = TypeVar("N", bound=BaseModel)


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some of many things, and the cursor of those that follow; None at the end."""

    items: Sequence[T]
    next: str | None


class Me(BaseModel):
    """Whose the token is, and what it may do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    team: str
    roles: list[str]
    read: list[str]
    write: list[str]


def submit(request: JobRequest, key: str, *, only_plan: bool = False) -> Call[Job]:
    """A new job; the same again for the same key."""
    return Call(
        method="POST",
        path="plans" if only_plan else "jobs",
        read=_one(Job),
        body=request.model_dump(mode="json"),
        headers={"Idempotency-Key": key},
    )


def job(number: str) -> Call[Job]:
    """A job as it is now."""
    return Call(method="GET", path=f"jobs/{part(number)}", read=_one(Job))


def jobs(wanted: Sequence[tuple[str, str]], cursor: str | None = None) -> Call[Page[Job]]:
    """One page of jobs, newest first."""

    def read(content: bytes) -> Page[Job]:
        page = JobPage.model_validate_json(content)
        return Page(page.jobs, page.next)

    return Call(method="GET", path="jobs", read=read, params=[*wanted, *_from(cursor)])


def cancel(number: str) -> Call[Job]:
    """Ask for the end of a job; a second time is no error."""
    return Call(method="POST", path=f"jobs/{part(number)}/cancel", read=_one(Job))


def retry(number: str) -> Call[Job]:
    """Queue a job again."""
    return Call(method="POST", path=f"jobs/{part(number)}/retry", read=_one(Job), repeatable=False)


def me() -> Call[Me]:
    """Who asks."""
    return Call(method="GET", path="me", read=_one(Me))


def create_token(request: TokenRequest) -> Call[NewToken]:
    """A new token; its secret is told once, so that this is never done twice."""
    body = request.model_dump(mode="json")
    return Call(method="POST", path="tokens", read=_one(NewToken), body=body, repeatable=False)


def tokens() -> Call[list[Token]]:
    """All tokens."""
    return Call(method="GET", path="tokens", read=_listed(Token, "tokens"))


def revoke_token(number: str) -> Call[Token]:
    """End a token."""
    return Call(method="DELETE", path=f"tokens/{part(number)}", read=_one(Token))


def audit(cursor: str | None = None) -> Call[Page[AuditEntry]]:
    """Who did what; one page, newest first."""
    return Call(method="GET", path="audit", read=_paged(AuditEntry, "entries"), params=_from(cursor))


def create_schedule(request: ScheduleRequest) -> Call[Schedule]:
    """A new schedule."""
    body = request.model_dump(mode="json")
    return Call(method="POST", path="schedules", read=_one(Schedule), body=body, repeatable=False)


def schedules() -> Call[list[Schedule]]:
    """All schedules."""
    return Call(method="GET", path="schedules", read=_listed(Schedule, "schedules"))


def schedule(number: str) -> Call[Schedule]:
    """A schedule as it is now."""
    return Call(method="GET", path=f"schedules/{part(number)}", read=_one(Schedule))


def replace_schedule(number: str, request: ScheduleRequest) -> Call[Schedule]:
    """Give a schedule other settings."""
    body = request.model_dump(mode="json")
    return Call(method="PUT", path=f"schedules/{part(number)}", read=_one(Schedule), body=body)


def delete_schedule(number: str) -> Call[None]:
    """End a schedule."""
    return Call(method="DELETE", path=f"schedules/{part(number)}", read=lambda _content: None)


def pause_schedule(number: str, *, pause: bool) -> Call[Schedule]:
    """Pause a schedule, or resume it; a second time is no error."""
    path = f"schedules/{part(number)}/{'pause' if pause else 'resume'}"
    return Call(method="POST", path=path, read=_one(Schedule))


def run_schedule(number: str) -> Call[Tick]:
    """A tick now."""
    return Call(method="POST", path=f"schedules/{part(number)}/run", read=_one(Tick), repeatable=False)


def ticks(number: str, cursor: str | None = None) -> Call[Page[Tick]]:
    """What became of a schedule's ticks; one page, newest first."""
    path = f"schedules/{part(number)}/ticks"
    return Call(method="GET", path=path, read=_paged(Tick, "ticks"), params=_from(cursor))


def logs(number: str, *, attempt: int | None, tail: int | None, follow: bool) -> Call[None]:
    """What a driver wrote; its answer is streamed."""
    asked = {"attempt": attempt, "tail": tail, "follow": "true" if follow else None}
    params = [(name, str(value)) for name, value in asked.items() if value is not None]
    headers = {"Accept": "text/plain"}
    return Call(
        method="GET",
        path=f"jobs/{part(number)}/logs",
        read=lambda _content: None,
        params=params,
        headers=headers,
    )


def _one(model: type[N]) -> Callable[[bytes], N]:
    return model.model_validate_json


def _listed(model: type[N], key: str) -> Callable[[bytes], list[N]]:
    adapter = TypeAdapter(list[model])  # type: ignore[valid-type]
    return lambda content: adapter.validate_python(_object(content)[key])


def _paged(model: type[N], key: str) -> Callable[[bytes], Page[N]]:
    listed = _listed(model, key)

    def read(content: bytes) -> Page[N]:
        following = _object(content).get("next")
        return Page(listed(content), None if following is None else str(following))

    return read


def _object(content: bytes) -> Mapping[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise TypeError("no object")
    return found


def _from(cursor: str | None) -> list[tuple[str, str]]:
    return [] if cursor is None else [("cursor", cursor)]
