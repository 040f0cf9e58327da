"""Every request of a merge from S3 to S3, and everything that can go wrong with it.

Either the bytes are those of a merge that nothing disturbs, or there is an error and no model. What is
looked at after each is in :meth:`tests.support.s3_job.ReferenceJob.try_with`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from plait_service import driver as driver_module
from plait_service import housekeeping
from tests.support.fault_table import RecordProperty, note
from tests.support.s3_faults import OPERATIONS, Fault, Kind, kinds_for
from tests.support.s3_job import IDENTICAL, ReferenceJob, Result, grouped, make_quick, share
from tests.support.s3_labels import Label

SHARES = 24
"""Test cases over which the faults are dealt, so that several processes take part."""
TOGETHER = 16
"""Faults in one merge. If such a merge does not go well, each of its faults is tried alone."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def is_header(fault: Fault) -> bool:
    """Damage to what the plan is made of: it looks like a malformed source, before anything was begun."""
    return fault.kind is Kind.FLIPPED and fault.label.detail.startswith("bytes=0-")


def assert_well(result: Result) -> None:
    """The bytes are as they should be; a damaged header that still reads is found out at the end."""
    expected = [IDENTICAL, "source-corrupt"] if any(map(is_header, result.faults)) else [IDENTICAL]
    assert result.outcome in expected, result
    assert result.struck == len(result.faults), result


def tried(job: ReferenceJob, faults: Sequence[Fault]) -> Iterator[Result]:
    """These faults, several in a merge; if anything is the matter with that, each alone."""
    yield from (job.try_with([fault]) for fault in faults if is_header(fault))
    for group in grouped((fault for fault in faults if not is_header(fault)), TOGETHER):
        result = job.try_with(group)
        if result.outcome == IDENTICAL and result.struck == len(group):
            yield from (replace(result, faults=(fault,), struck=1) for fault in group)
        else:
            yield from (job.try_with([fault]) for fault in group)


def rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    return [(str(fault.kind), result.outcome) for result in results for fault in result.faults]


def test_the_reference_uses_everything_that_we_ask_of_s3(job: ReferenceJob) -> None:
    seen = {label.operation for label in job.traffic}
    assert seen == set(OPERATIONS) - {"ListMultipartUploads"}
    kinds = {fault.kind for fault in job.faults()}
    assert kinds == set(Kind) - {Kind.EXPIRED, Kind.DENIED}
    assert any(label.operation == "UploadPart" and label.detail == "part=2" for label in job.traffic)


@pytest.mark.parametrize("number", range(SHARES))
def test_every_request_outlives_everything_that_can_befall_it(
    job: ReferenceJob, number: int, record_property: RecordProperty
) -> None:
    results = list(tried(job, share(job.faults(), number, SHARES)))
    note(record_property, rows(results))
    for result in results:
        assert_well(result)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(SHARES))
def test_every_request_outlives_each_fault_alone(
    job: ReferenceJob, number: int, record_property: RecordProperty
) -> None:
    results = [job.try_with([fault]) for fault in share(job.faults(), number, SHARES)]
    note(record_property, rows(results))
    for result in results:
        assert_well(result)


@pytest.mark.parametrize("kind", kinds_for(Label("PutObject", "")))
def test_the_housekeeping_beside_the_work_outlives_it_too(
    job: ReferenceJob, kind: Kind, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty
) -> None:
    """Heartbeats, looks at the claim and flushes of the journal, which a short merge has none of."""
    monkeypatch.setattr(driver_module, "FLUSH_EVERY", 0.001)
    monkeypatch.setattr(housekeeping, "HEARTBEAT", 0.0)
    places = [
        Label("PutObject", "out/.plait/alive-000001-*", count=2),
        Label("PutObject", "out/.plait/journal-000001-*-N.json"),
    ]
    looks = [Label("ListObjectsV2", "out/.plait/claim-", count=6)]
    faults = [Fault(label, kind) for label in places if kind is not Kind.FLIPPED_UP or "journal" in label.key]
    faults += [Fault(label, kind) for label in looks if kind in kinds_for(label)]
    result = job.try_with(faults, threads=1, step=1 << 20, on_progress=lambda _progress: time.sleep(0.05))
    note(record_property, rows([replace(result, faults=(fault,)) for fault in faults]))
    assert_well(result)


def two_at_random(job: ReferenceJob, seed: int) -> Result:
    """Two faults, each up to three times in a row; they may be of one request."""
    drawn = random.Random(seed)
    faults = [replace(fault, times=drawn.randint(1, 3)) for fault in drawn.sample(job.faults(), 2)]
    return job.try_with(faults, clean=seed % 2 == 1)


@pytest.mark.parametrize("seed", range(50))
def test_two_faults_at_random(job: ReferenceJob, seed: int, record_property: RecordProperty) -> None:
    result = two_at_random(job, seed)
    note(record_property, [("two at random", result.outcome)])


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(50, 1050))
def test_many_times_two_faults_at_random(
    job: ReferenceJob, seed: int, record_property: RecordProperty
) -> None:
    result = two_at_random(job, seed)
    note(record_property, [("two at random", result.outcome)])
