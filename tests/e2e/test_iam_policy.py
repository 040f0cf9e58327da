"""The policy in deploy/aws allows what a merge asks of S3, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plait.errors import AccessDenied, PlaitError, PlanRejected
from plait_service.cleaning import find_leftovers
from plait_service.driver import Driver
from tests.support.merging import budget_for, merge, prepared_of
from tests.support.s3_faults import Kind
from tests.support.s3_job import OUT, ReferenceJob, make_quick
from tests.support.s3_labels import Label
from tests.support.s3_proxy import S3Proxy

POLICY = Path(__file__).parents[2] / "deploy/aws/iam-policy.json"
ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


def allowed(bucket: str) -> set[str]:
    statements = json.loads(POLICY.read_text())["Statement"]
    return {
        action
        for statement in statements
        if any(bucket in resource for resource in statement["Resource"])
        for action in statement["Action"]
    }


def of_output(label: Label) -> bool:
    return label.key.startswith(OUT)


@pytest.fixture(autouse=True)
def _tidy(job: ReferenceJob, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_quick(monkeypatch)
    yield
    job.clear()


class _Stop(Exception):
    """Ends a driver as a kill would: nothing of Plait catches it."""


def life(job: ReferenceJob) -> None:
    """Plan, stop on the way, carry on, replace, clean."""

    def stop(name: str) -> None:
        if name == "publish":
            raise _Stop

    prepared = prepared_of(job.spec())
    with pytest.raises(_Stop):
        Driver(prepared, budget_for(prepared), on_step=stop).run()
    merge(job.spec())
    merge(job.spec(seed=1), overwrite=True)


def test_it_is_exactly_what_is_asked(job: ReferenceJob) -> None:
    with job.by_proxy() as proxy:
        life(job)
        find_leftovers(job.bucket.uri(OUT))
    calls = {call for call in proxy.calls if not call.operation.startswith(("HeadBucket", "CreateBucket"))}
    assert {ACTIONS[call.operation] for call in calls if of_output(call)} == allowed("OUTPUT-BUCKET")
    assert {ACTIONS[call.operation] for call in calls if not of_output(call)} == allowed("SOURCE-BUCKET")


@contextmanager
def without(job: ReferenceJob, action: str, *, output: bool) -> Iterator[S3Proxy]:
    """The store denies this action, on the output or on the sources."""

    def choose(label: Label) -> Kind | None:
        denied = ACTIONS.get(label.operation) == action and of_output(label) == output
        return Kind.DENIED if denied else None

    with job.by_proxy(choose) as proxy:
        yield proxy


def denied(error: PlaitError) -> bool:
    problems = error.problems if isinstance(error, PlanRejected) else [error]
    return all(isinstance(problem, AccessDenied) for problem in problems)


@pytest.mark.parametrize("action", sorted({*ACTIONS.values()} - {"s3:ListBucketMultipartUploads"}))
def test_without_any_of_it_the_merge_says_so(job: ReferenceJob, action: str) -> None:
    with without(job, action, output=True) as proxy:
        with pytest.raises(PlaitError) as refused:
            life(job)
        assert proxy.struck
    assert denied(refused.value)
    assert job.bucket.etags("sources/") == job.sources


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject"])
def test_sources_that_may_not_be_read(job: ReferenceJob, action: str) -> None:
    with without(job, action, output=False), pytest.raises(PlaitError) as refused:
        merge(job.spec())
    assert denied(refused.value)
    assert not job.bucket.etags(f"{OUT}/")


def test_only_cleaning_lists_uploads(job: ReferenceJob) -> None:
    with without(job, "s3:ListBucketMultipartUploads", output=True):
        life(job)
        with pytest.raises(AccessDenied):
            find_leftovers(job.bucket.uri(OUT))
