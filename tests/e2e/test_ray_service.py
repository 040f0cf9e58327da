"""The service's jobs as jobs of a real Ray cluster: merged, cancelled, and lost with their head."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plait.jobs import JobKind, JobState
from plait_service.jobs.backends.base import DriverRequest, Life
from plait_service.jobs.backends.ray_jobs import RayJobsBackend
from plait_service.jobs.records import Jobs
from plait_service.jobs.runner import Runner
from tests.support.merging import fails
from tests.support.ray_cluster import RayCluster
from tests.support.ray_merge import PARTS, AtPart, RayJob, proxied
from tests.support.service_jobs import database_at, submit
from tests.support.waiting import until

PROGRAM = (sys.executable, "-m", "plait")  # these nodes have no image of ours


@pytest.fixture
def bench(tmp_path: Path, ray_cluster: RayCluster, ray_job: RayJob) -> Iterator[tuple[Jobs, Runner]]:
    database = database_at(tmp_path)
    runner = Runner(database, RayJobsBackend(ray_cluster.dashboard, PROGRAM), slots=2)
    runner.start()
    yield Jobs(database), runner
    runner.stop()
    ray_job.clear()


def submitted(bench: tuple[Jobs, Runner], spec: dict[str, Any], **options: Any) -> str:
    jobs, runner = bench
    job = submit(jobs, spec["output"], spec=spec, **options)
    runner.wake()
    return job.id


def test_a_job(ray_job: RayJob, bench: tuple[Jobs, Runner]) -> None:
    jobs, runner = bench
    number = submitted(bench, ray_job.spec())
    job = until(lambda: found if (found := jobs.get(number, None)).state.is_final else None, 120)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result["parts_merged"] == PARTS
    assert job.plan["parts"] == PARTS
    kinds = {event.kind for event in jobs.events(number, 0)}
    assert kinds >= {"planned", "claimed", "node-joined", "publishing", "committed"}
    ray_job.check()
    runner.backend.forget(job.attempts[0].handle)
    assert runner.backend.look(job.attempts[0].handle).life is Life.ABSENT


def test_a_plan_with_problems(ray_job: RayJob, bench: tuple[Jobs, Runner]) -> None:
    jobs, _ = bench
    spec = ray_job.spec(base=ray_job.bucket.uri("nowhere"))
    number = submitted(bench, spec, kind=JobKind.PLAN)
    job = until(lambda: found if (found := jobs.get(number, None)).state.is_final else None, 120)
    assert job.state is JobState.FAILED
    assert [problem["kind"] for problem in job.error.problems] == ["source-missing"]


def test_cancelled_in_the_middle_it_keeps_its_parts(ray_job: RayJob, bench: tuple[Jobs, Runner]) -> None:
    jobs, runner = bench
    with proxied(ray_job, AtPart(6, lambda: jobs.cancel(number, None), pause=0.5)) as proxy:
        number = submitted(bench, ray_job.by_way_of(proxy, timeout=60))
        job = until(lambda: found if (found := jobs.get(number, None)).state.is_final else None, 120)
    assert job.state is JobState.CANCELLED
    assert 0 < ray_job.journalled() < PARTS
    jobs.retry(number, None)
    runner.wake()
    job = until(lambda: found if (found := jobs.get(number, None)).state.is_final else None, 120)
    # By way of a proxy that is gone: the endpoint is not there any more, and that is worth a retry.
    assert job.error.kind == "store-unavailable"


def test_a_handle_is_one_job_however_often_it_is_started(ray_job: RayJob, ray_cluster: RayCluster) -> None:
    backend = RayJobsBackend(ray_cluster.dashboard, PROGRAM)
    request = DriverRequest(kind=JobKind.PLAN, spec=ray_job.spec(), overwrite=False)
    for _ in range(3):
        backend.start("twice-a1", request)
    until(lambda: backend.look("twice-a1").life is Life.ENDED, 120)
    assert backend.look("twice-a1").status == 0
    whole = backend.read("twice-a1", 0)
    said = [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
    assert [each["status"] for each in said] == ["planned"]
    assert backend.read("twice-a1", len(whole) - 5) == whole[-5:]
    assert backend.look("never-a1").life is Life.ABSENT
    assert backend.read("never-a1", 0) == b""
    backend.stop("never-a1", hard=True)


def test_a_spec_that_is_too_long_for_a_command_line(ray_cluster: RayCluster) -> None:
    request = DriverRequest(kind=JobKind.MERGE, spec={"models": ["s3://b/" + "x" * 100_000]}, overwrite=False)
    with fails("spec-invalid"):
        RayJobsBackend(ray_cluster.dashboard, PROGRAM).start("long-a1", request)


def test_a_head_that_does_not_answer() -> None:
    backend = RayJobsBackend("http://127.0.0.1:9")
    with fails("service-unavailable"):
        backend.look("a")
