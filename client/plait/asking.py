"""From what a caller writes to what is sent: specs, labels, moments, keys. Reads only a spec's file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ValidationError

from plait.errors import PlanRejected, SourceMissing, SpecInvalid
from plait.jobs import JobRequest, JobState
from plait.spec import MergeSpec, load_spec
from plait.spec_problems import dotted, findings
from plait.uri import UriError, parse_uri

SpecLike: TypeAlias = MergeSpec | Mapping[str, Any] | str | os.PathLike[str]
"""A spec, the same as plain data, YAML, or a path of a file of it."""
States: TypeAlias = JobState | str | Iterable[JobState | str]
N = TypeVar("N", bound=BaseModel)
_MOST_KEY: Final = 255


def spec_data(spec: SpecLike) -> dict[str, Any]:
    """The spec as it is sent: validated but for its method's options; the same from any working directory.

    Raises:
        PlanRejected: with everything that is wrong with it.
        SourceMissing: there is no such file.
    """
    found = _spec(spec)
    try:
        return found.canonical().model_dump(mode="json", exclude_unset=True)
    except UriError as error:
        raise SpecInvalid("a place in the spec", found=str(error)) from None


def _spec(spec: SpecLike) -> MergeSpec:
    if isinstance(spec, MergeSpec):
        return spec
    if isinstance(spec, str):
        return load_spec(spec, name="the spec")
    if isinstance(spec, Mapping):
        return checked(MergeSpec, dict(spec))
    try:
        return load_spec(Path(spec).read_bytes(), name=os.fspath(spec))
    except FileNotFoundError:
        raise SourceMissing("no such spec", where=os.fspath(spec)) from None
    except OSError as error:
        raise SpecInvalid("the spec cannot be read", where=os.fspath(spec), found=error.strerror) from None


def checked(model: type[N], data: Mapping[str, Any]) -> N:
    """A model of plain data.

    Raises:
        PlanRejected: with everything that is wrong with it.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = findings(error, data, lambda path: () if path else tuple(model.model_fields))
        raise PlanRejected(
            SpecInvalid(
                f"reading {dotted(each.path)}", expected=each.expected, found=each.found, hint=each.hint
            )
            for each in found
        ) from None


def as_model(model: type[N], request: N | Mapping[str, Any]) -> N:
    """A model, or the one of plain data.

    Raises:
        PlanRejected: with everything that is wrong with it.
    """
    return request if isinstance(request, model) else checked(model, cast("Mapping[str, Any]", request))


def job_request(
    spec: SpecLike,
    labels: Mapping[str, str] | None,
    priority: int,
    overwrite: bool,
    attempts: int,
) -> JobRequest:
    """A job to submit.

    Raises:
        PlanRejected: with everything that is wrong with it.
    """
    settings = {
        "labels": dict(labels or {}),
        "priority": priority,
        "overwrite": overwrite,
        "attempts": attempts,
    }
    return checked(JobRequest, {"spec": spec_data(spec), **settings})


def key_or_new(key: str | None) -> str:
    """An idempotency key: the caller's, or one that nobody else has.

    Raises:
        SpecInvalid: no header can carry it.
    """
    if key is None:
        return f"plait-{uuid.uuid4()}"
    if not 0 < len(key) <= _MOST_KEY or not all("!" <= character <= "~" for character in key):
        raise SpecInvalid(
            "the idempotency key", expected=f"1 to {_MOST_KEY} printable ASCII characters without spaces"
        )
    return key


def filters(
    state: States | None = None,
    labels: Mapping[str, str] | None = None,
    output: str | os.PathLike[str] | None = None,
    schedule: str | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int | None = None,
) -> list[tuple[str, str]]:
    """Which jobs, as parameters of a request.

    Raises:
        SpecInvalid: there is no such state, or the output is no URI.
    """
    found = [("state", each.value) for each in _states(state)]
    found += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
    if output is not None:
        try:
            found.append(("output", str(parse_uri(os.fspath(output)))))
        except UriError as error:
            raise SpecInvalid("the output", found=str(error)) from None
    if schedule is not None:
        found.append(("schedule", schedule))
    for name, moment in (("after", after), ("before", before)):
        if moment is not None:  # one without a time zone is of this machine's
            found.append((name, moment.astimezone(UTC).isoformat()))
    if limit is not None:
        found.append(("limit", str(limit)))
    return found


def _states(state: States | None) -> list[JobState]:
    if state is None:
        return []
    try:
        return [JobState(each) for each in ([state] if isinstance(state, str) else state)]
    except ValueError:
        known = ", ".join(JobState)
        raise SpecInvalid("the state of a job", expected=f"one of {known}", found=repr(state)[:80]) from None
