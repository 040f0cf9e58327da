"""Who runs when, and what becomes of a job: with played drivers, a step at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from plait.errors import (
    AccessDenied,
    CommitUnknown,
    PlanRejected,
    ServiceUnavailable,
    SpecInvalid,
    StoreUnavailable,
)
from plait.jobs import Job, JobKind, JobState
from plait_service.jobs import runner as runner_module
from plait_service.jobs.backends.base import DriverRequest, Life
from plait_service.jobs.database import Database
from plait_service.jobs.records import Jobs, now
from plait_service.jobs.runner import Runner, overlap
from plait_service.jobs.tables import JobRow
from tests.support.merging import fails
from tests.support.service_jobs import PlayedBackend, database_at, submit

CLAIMED = '{"kind": "claimed", "epoch": 1}'
PLANNED = '{"kind": "planned", "parts": 3, "bytes_read": 60, "bytes_written": 20}'
PROGRESS = '{"kind": "progress", "bytes_done": 10, "bytes_total": 20, "rate": 5, "seconds_left": 2.0}'
PUBLISHING = '{"kind": "publishing", "shards": 1}'
DONE = '{"status": "done", "fingerprint": "f0", "parts_merged": 3}'


def failed(error: Exception) -> str:
    return json.dumps({"status": "failed", "error": error.to_json()})  # type: ignore[attr-defined]


class Bench:
    """A database, a played backend, and a runner that goes a step when it is told."""

    def __init__(self, folder: Path, slots: int = 2) -> None:
        self.database = database_at(folder)
        self.jobs = Jobs(self.database)
        self.backend = PlayedBackend()
        self.changes: list[tuple[str, JobState]] = []
        self.runner = self.new_runner(slots)

    def new_runner(self, slots: int = 2) -> Runner:
        """As after a restart of the service."""
        return Runner(
            self.database,
            self.backend,
            slots=slots,
            options=("--memory", "1GB"),
            on_change=lambda job, state: self.changes.append((job, state)),
        )

    def submit(self, *arguments: object, **options: object) -> str:
        return submit(self.jobs, *arguments, **options).id

    def job(self, number: str) -> Job:
        return self.jobs.get(number, None)

    def state(self, number: str) -> JobState:
        return self.job(number).state

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.runner.step()

    def working(self) -> set[str]:
        page = self.jobs.page(_active())
        return {job.id for job in page.jobs}

    def hurry(self, number: str) -> None:
        """What waits for a while is due."""
        with self.database.begin() as session:
            row = session.get_one(JobRow, number)
            row.not_before = now() - timedelta(seconds=1)


def _active() -> object:
    from plait_service.jobs.records import Filter

    return Filter(team=None, states=[state for state in JobState if state.is_active])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_good_day(bench: Bench) -> None:
    job = bench.submit("/out")
    handle = f"{job}-a1"
    bench.step()
    assert bench.state(job) is JobState.PLANNING
    assert bench.backend.requests[handle].arguments("SPEC") == [
        *("merge", "SPEC", "--json", "--log-json", "--memory", "1GB")
    ]
    bench.backend.say(handle, PLANNED, CLAIMED)
    bench.step()
    assert bench.state(job) is JobState.RUNNING
    assert bench.job(job).plan == {"parts": 3, "bytes_read": 60, "bytes_written": 20}
    bench.backend.say(handle, PROGRESS)
    bench.step()
    progress = bench.job(job).progress
    assert progress is not None
    assert (progress.share, progress.seconds_left) == (0.5, 2.0)
    bench.backend.say(handle, PUBLISHING)
    bench.step()
    assert bench.state(job) is JobState.COMMITTING
    bench.backend.end(handle, 0, DONE)
    bench.step()
    found = bench.job(job)
    assert found.state is JobState.SUCCEEDED
    assert found.result == json.loads(DONE)
    assert found.progress is not None
    assert found.progress.share == 1.0
    assert [(each.number, each.outcome) for each in found.attempts] == [(1, "succeeded")]
    assert [event.kind for event in bench.jobs.events(job, 0)] == [
        *("state", "state", "planned", "state", "claimed", "progress", "state", "publishing", "state")
    ]
    assert bench.changes[-1] == (job, JobState.SUCCEEDED)


class TestTheQueue:
    def test_no_more_than_slots_and_by_priority_then_age(self, bench: Bench) -> None:
        jobs = {
            name: bench.submit(f"/out/{name}", priority=level)
            for name, level in (("a", 0), ("b", 5), ("c", 0))
        }
        bench.step()
        assert bench.working() == {jobs["b"], jobs["a"]}
        bench.backend.end(f"{jobs['b']}-a1", 0, DONE)
        bench.step()
        assert bench.working() == {jobs["a"], jobs["c"]}

    def test_one_job_at_a_time_for_each_output(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, slots=10)
        first, same, below, other = (
            bench.submit(place) for place in ("/out/x", "/out/x", "/out/x/y", "/out/xy")
        )
        bench.step()
        assert bench.working() == {first, other}
        bench.backend.end(f"{first}-a1", 0, DONE)
        bench.step()
        assert bench.working() == {same, other}
        assert bench.state(below) is JobState.QUEUED

    def test_very_many_that_wait_for_one_output_hold_up_nobody(self, bench: Bench) -> None:
        same = [bench.submit("/out/same") for _ in range(runner_module._AT_ONCE + 10)]
        other = bench.submit("/out/other", priority=-100)
        bench.step()
        assert bench.working() == {same[0], other}

    def test_plans_do_not_wait_for_merges(self, bench: Bench) -> None:
        merge, plan = bench.submit("/out"), bench.submit("/out", kind=JobKind.PLAN)
        bench.step()
        assert bench.working() == {merge, plan}
        assert bench.backend.requests[f"{plan}-a1"].arguments("SPEC") == ["plan", "SPEC", "--json"]
        bench.backend.end(f"{plan}-a1", 0, '{"status": "planned", "parts": 3}')
        bench.step()
        assert bench.state(plan) is JobState.SUCCEEDED
        assert bench.job(plan).plan == {"status": "planned", "parts": 3}

    def test_places(self) -> None:
        assert overlap("s3://b/out", "s3://b/out")
        assert overlap("s3://b/out", "s3://b/out/below")
        assert not overlap("s3://b/out", "s3://b/outer")
        assert not overlap("s3://b/out", "s3://c/out")


class TestEndings:
    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (PlanRejected([SpecInvalid("one"), AccessDenied("two")]), JobState.FAILED),
            (AccessDenied("no"), JobState.FAILED),
            (CommitUnknown("perhaps"), JobState.UNKNOWN),
        ],
    )
    def test_what_no_retry_helps(self, bench: Bench, error: Exception, state: JobState) -> None:
        job = bench.submit()
        bench.step()
        bench.backend.end(f"{job}-a1", 1, failed(error))
        bench.step(3)
        found = bench.job(job)
        assert found.state is state
        assert found.error is not None
        assert found.error.kind == error.kind  # type: ignore[attr-defined]
        assert len(found.error.problems) == len(getattr(error, "problems", ()))
        assert list(bench.backend.requests) == [f"{job}-a1"]

    @pytest.mark.parametrize("said", [[failed(StoreUnavailable("away"))], []], ids=["retryable", "killed"])
    def test_what_may_help_is_tried_again_so_often(self, bench: Bench, said: list[str]) -> None:
        job = bench.submit(attempts=3)
        for number in (1, 2, 3):
            bench.step()
            assert bench.state(job) is JobState.PLANNING
            bench.backend.end(f"{job}-a{number}", None, CLAIMED, *said)
            bench.step()
            if number < 3:
                assert bench.state(job) is JobState.QUEUED
                assert bench.working() == set()  # it waits a while
                bench.hurry(job)
        found = bench.job(job)
        assert found.state is JobState.FAILED
        assert found.error is not None
        assert found.error.kind == ("store-unavailable" if said else "driver-lost")
        assert [each.number for each in found.attempts] == [1, 2, 3]
        bench.jobs.retry(job, None)
        bench.step()
        assert bench.state(job) is JobState.PLANNING
        bench.backend.end(f"{job}-a4", 0, DONE)
        bench.step()
        assert bench.state(job) is JobState.SUCCEEDED
        assert bench.job(job).error is None

    def test_a_driver_that_somebody_else_stopped_is_started_again(self, bench: Bench) -> None:
        job = bench.submit()
        bench.step()
        bench.backend.end(
            f"{job}-a1", 130, '{"status": "failed", "error": {"kind": "cancelled", "message": ""}}'
        )
        bench.step()
        assert bench.state(job) is JobState.QUEUED

    def test_where_drivers_run_there_is_no_plait(self, bench: Bench) -> None:
        job = bench.submit()
        bench.step()
        bench.backend.end(f"{job}-a1", 127, "sh: plait: not found")
        bench.step()
        found = bench.job(job)
        assert found.state is JobState.FAILED
        assert found.error is not None
        assert found.error.kind == "cluster-unsuitable"

    def test_a_backend_that_refuses_the_job(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(handle: str, request: DriverRequest) -> None:
            raise SpecInvalid("too long")

        monkeypatch.setattr(bench.backend, "start", refuse)
        job = bench.submit()
        bench.step()
        assert bench.state(job) is JobState.FAILED


class TestCancel:
    def test_it_is_asked_to_stop_and_after_a_while_ended(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = bench.submit()
        bench.step()
        bench.jobs.cancel(job, None)
        bench.step()
        assert bench.backend.stopped == [(f"{job}-a1", False)]
        monkeypatch.setattr(runner_module, "PATIENCE_TO_STOP", timedelta(0))
        bench.step()
        assert bench.backend.stopped[-1] == (f"{job}-a1", True)
        bench.backend.end(f"{job}-a1", 130)
        bench.step()
        assert bench.state(job) is JobState.CANCELLED

    def test_too_late(self, bench: Bench) -> None:
        job = bench.submit()
        bench.step()
        bench.jobs.cancel(job, None)
        bench.backend.end(f"{job}-a1", 0, DONE)
        bench.step()
        assert bench.state(job) is JobState.SUCCEEDED

    def test_before_its_driver_was_started(self, bench: Bench) -> None:
        job = bench.submit()
        bench.backend.down = ServiceUnavailable("away")
        bench.step()
        bench.jobs.cancel(job, None)
        bench.backend.down = None
        bench.step()
        assert bench.state(job) is JobState.CANCELLED
        assert bench.backend.requests == {}


class TestRestarts:
    """The service is killed after any transaction: what follows it is made up for by the next one."""

    def test_between_record_and_start(self, bench: Bench) -> None:
        job = bench.submit()
        bench.backend.down = ServiceUnavailable("killed")
        bench.step()
        assert bench.state(job) is JobState.PLANNING
        assert bench.backend.requests == {}
        bench.backend.down = None
        bench.runner = bench.new_runner()
        bench.step()
        assert list(bench.backend.requests) == [f"{job}-a1"]

    def test_in_the_middle_nothing_is_told_twice(self, bench: Bench) -> None:
        job = bench.submit()
        bench.step()
        for lines in ([PLANNED], [CLAIMED, PROGRESS], [PROGRESS]):
            bench.backend.say(f"{job}-a1", *lines)
            bench.runner = bench.new_runner()
            bench.step(2)
        bench.backend.end(f"{job}-a1", 0, DONE)
        bench.runner = bench.new_runner()
        bench.step(2)
        kinds = [event.kind for event in bench.jobs.events(job, 0) if event.kind != "state"]
        assert kinds == ["planned", "claimed", "progress", "progress"]
        assert bench.state(job) is JobState.SUCCEEDED
        assert list(bench.backend.requests) == [f"{job}-a1"]

    def test_the_head_of_a_cluster_is_lost_with_all_it_knew(self, bench: Bench) -> None:
        job = bench.submit()
        bench.step()
        bench.backend.say(f"{job}-a1", CLAIMED)
        bench.step()
        bench.backend.down = ServiceUnavailable("no head")
        bench.step(3)
        assert bench.state(job) is JobState.RUNNING
        bench.backend.down = None
        bench.backend.drivers.clear()
        bench.step()
        assert bench.state(job) is JobState.QUEUED
        bench.hurry(job)
        bench.step()
        assert set(bench.backend.requests) == {f"{job}-a1", f"{job}-a2"}
        assert bench.backend.drivers[f"{job}-a2"].life is Life.RUNNING


def test_old_jobs_are_forgotten_and_their_logs_before_them(bench: Bench) -> None:
    job, other = bench.submit("/one"), bench.submit("/two")
    bench.step()
    bench.backend.end(f"{job}-a1", 0, DONE)
    bench.step()
    bench.runner.forget(now() - timedelta(hours=1))
    assert set(bench.backend.drivers) == {f"{job}-a1", f"{other}-a1"}
    bench.backend.down = ServiceUnavailable("away")
    with fails("service-unavailable"):
        bench.runner.forget(now() + timedelta(hours=1))
    assert bench.state(job) is JobState.SUCCEEDED
    bench.backend.down = None
    bench.runner.forget(now() + timedelta(hours=1))
    assert set(bench.backend.drivers) == {f"{other}-a1"}
    with fails("not-found"):
        bench.job(job)
    assert bench.state(other) is JobState.PLANNING


def test_one_jobs_trouble_is_not_anothers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bench.submit("/one"), bench.submit("/two")
    bench.step()
    look: Callable[[str], object] = bench.backend.look

    def one_is_away(handle: str) -> object:
        if handle.startswith(first):
            raise ServiceUnavailable("away")
        return look(handle)

    monkeypatch.setattr(bench.backend, "look", one_is_away)
    bench.backend.end(f"{second}-a1", 0, DONE)
    bench.step()
    assert bench.state(first) is JobState.PLANNING
    assert bench.state(second) is JobState.SUCCEEDED


def test_the_thread_goes_on_after_a_fault_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.waiting import until

    bench = Bench(tmp_path)
    begin: Callable[[Database], object] = Database.begin
    faults = iter([RuntimeError("once")])

    def faulty(self: Database) -> object:
        for fault in faults:
            raise fault
        return begin(self)

    job = bench.submit()
    monkeypatch.setattr(Database, "begin", faulty)
    bench.runner.start()
    try:
        until(lambda: bench.state(job) is JobState.PLANNING)
    finally:
        bench.runner.stop()
