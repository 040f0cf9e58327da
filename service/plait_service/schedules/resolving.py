"""From a schedule and a moment to a job: dates filled in, validated, authorised."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from plait.errors import Forbidden, PlaitError, PlanRejected, SpecInvalid
from plait.jobs import JobRequest
from plait.schedules import ScheduleRequest
from plait.spec_model import MergeSpec, SourceGlob
from plait.uri import Uri, UriError, parse_glob, parse_uri
from plait_service.api.places import authorise
from plait_service.api.principal import Principal
from plait_service.api.settings import Settings
from plait_service.api.submitting import validate
from plait_service.schedules.template import has_dates, render, render_text
from plait_service.schedules.ticks import Cron, parse_cron

_WRITTEN: Final = ("file", "s3")


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a tick is to submit.

    Args:
        request: a job's, without dates.
        spec: of that job.
        output: canonical.
        ready: the glob to wait for, if any.
    """

    request: JobRequest
    spec: MergeSpec
    output: str
    ready: Uri | None


def check(request: ScheduleRequest, principal: Principal, settings: Settings, moment: datetime) -> Cron:
    """The moments of a schedule that is in order, as far as can be told before its first tick.

    Raises:
        PlanRejected: with everything that is wrong with it.
        Forbidden: with every place that the principal may not use.
    """
    problems: list[PlaitError] = []
    cron, due = None, moment
    try:
        cron = parse_cron(request.cron, request.timezone)
        due = cron.after(moment) or moment
    except PlanRejected as error:
        problems += error.problems
    zone = cron.zone if cron is not None else ZoneInfo("UTC")
    try:
        resolve(request, due, zone, principal, settings)
    except PlanRejected as error:
        problems += error.problems
    except Forbidden as error:
        problems.append(error)
    if len(problems) == 1 and isinstance(problems[0], Forbidden):
        raise problems[0]
    if problems or cron is None:
        raise PlanRejected(problems)
    return cron


def resolve(
    request: ScheduleRequest, due: datetime, zone: ZoneInfo, principal: Principal, settings: Settings
) -> Resolved:
    """What the tick at ``due`` is to submit. Asks no store.

    Raises:
        PlanRejected: with everything that is wrong with dates and spec.
        Forbidden: with every place that the principal may not use.
    """
    data, problems = render(request.spec, due, zone)
    job = JobRequest(
        spec=data,
        labels=request.labels,
        priority=request.priority,
        overwrite=request.overwrite,
        attempts=request.attempts,
    )
    ready = _ready(request, due, zone, problems)
    latest = _latest(request, problems)
    try:
        spec, output = validate(job, principal, settings)
    except PlanRejected as error:
        raise PlanRejected([*problems, *error.problems]) from None
    except Forbidden:
        if problems:  # of a place with a wrong date in it nobody can say whose it is
            raise PlanRejected(problems) from None
        raise
    if latest is not None and parse_uri(output).contains(latest):
        problems.append(
            SpecInvalid(
                "latest lies in the output", where="latest", expected="a place beside it", found=str(latest)
            )
        )
    if problems:
        raise PlanRejected(problems)
    if ready is not None:
        looked_at = spec.model_copy(update={"models": (SourceGlob.model_construct(glob=str(ready)),)})
        _authorise("ready.glob", looked_at, principal, settings)
    if latest is not None:
        authorise_pointer(spec, latest, principal, settings)
    return Resolved(request=job, spec=spec, output=output, ready=ready)


def authorise_pointer(spec: MergeSpec, latest: Uri, principal: Principal, settings: Settings) -> None:
    """Refuse a pointer where the principal may not write; the spec's own places are allowed already.

    Raises:
        Forbidden: that is so.
    """
    _authorise("latest", spec.model_copy(update={"output": str(latest)}), principal, settings)


def _authorise(key: str, spec: MergeSpec, principal: Principal, settings: Settings) -> None:
    """The place under test stands in the spec where it is read, or written, in the same way."""
    try:
        authorise(spec, principal, settings)
    except Forbidden as error:
        why = (error.found or "").partition(": ")[2]
        raise Forbidden(
            "a place of the schedule is not allowed", found=f"{key}: {why}", hint=error.hint
        ) from None


def _ready(request: ScheduleRequest, due: datetime, zone: ZoneInfo, problems: list[PlaitError]) -> Uri | None:
    if request.ready is None:
        return None
    try:
        _check_absolute(request.ready.glob)
        return parse_glob(render_text(request.ready.glob, due, zone, where="ready.glob"))
    except UriError as error:
        problems.append(SpecInvalid("a glob", where="ready.glob", found=error.reason))
    except SpecInvalid as error:
        problems.append(error)
    return None


def _check_absolute(text: str) -> None:
    """Of a service nobody knows the working directory."""
    if not text.startswith("/") and "://" not in text:
        raise UriError(text, "is neither an absolute path nor SCHEME://...")


def _latest(request: ScheduleRequest, problems: list[PlaitError]) -> Uri | None:
    if request.latest is None:
        return None
    found = None
    try:
        _check_absolute(request.latest)
        uri = parse_uri(request.latest)
    except UriError as error:
        found = f"one that {error.reason}"
    else:
        if uri.scheme not in _WRITTEN:
            found = f"{uri.scheme}://, which is not written to"
        elif has_dates(request.latest):
            found = "braces: consumers follow one name"
        elif not uri.path.strip("/") or request.latest.endswith("/"):
            found = "a folder"
        else:
            return uri
    problems.append(
        SpecInvalid(
            "the object that says where the newest result lies",
            where="latest",
            expected="its URI, such as s3://models/merged/latest.json",
            found=found,
        )
    )
    return None
