"""From a request to a job: validated and authorised at once, planned later."""

from __future__ import annotations

import json

from plait.jobs import JobKind, JobRequest
from plait.spec import load_spec
from plait.spec_model import MergeSpec
from plait.uri import parse_uri
from plait_service.api.places import authorise
from plait_service.api.principal import Principal
from plait_service.api.settings import Settings
from plait_service.jobs.records import Submission
from plait_workers.methods import METHODS


def validate(request: JobRequest, principal: Principal, settings: Settings) -> tuple[MergeSpec, str]:
    """The spec, and its canonical output.

    Asks no store: whether models exist is found when the job is planned.

    Raises:
        PlanRejected: with everything that is wrong with the spec.
        Forbidden: with every place that the principal may not use.
    """
    spec = load_spec(json.dumps(request.spec, indent=1), name="spec", methods=METHODS)
    authorise(spec, principal, settings)
    return spec, str(parse_uri(spec.output))


def submission_of(
    request: JobRequest,
    principal: Principal,
    settings: Settings,
    *,
    kind: JobKind = JobKind.MERGE,
    key: str | None = None,
    schedule: str | None = None,
) -> Submission:
    """A job of the principal's team.

    Raises:
        PlanRejected, Forbidden: see :func:`validate`.
    """
    _, output = validate(request, principal, settings)
    return Submission(
        request=request,
        output=output,
        team=principal.team,
        owner=principal.name,
        kind=kind,
        key=key,
        schedule=schedule,
    )
