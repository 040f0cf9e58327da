"""What the scheduler does at each moment; the clock and the ends of jobs are the test's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete

from plait.errors import WrongState
from plait.jobs import JobState
from plait_service.jobs.records import Jobs
from plait_service.jobs.tables import JobRow
from plait_service.schedules.scheduler import Scheduler
from tests.service.schedules.world import (
    FAILED,
    LATE,
    SKIPPED,
    START,
    SUBMITTED,
    SUCCEEDED,
    WAITING,
    World,
    at,
    days,
    end_job,
    write_model,
)


class TestTicks:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_a_tick_submits_a_job_with_its_own_dates(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create(labels={"run": "nightly"}, priority=7, overwrite=True, attempts=5)
        assert made.next_due == at("2026-11-21 03:00")
        world.step("2026-11-21 02:59:59")
        assert not world.jobs()
        world.step("2026-11-21 03:00:01", steps=3)
        (job,) = world.jobs()
        assert job.spec["models"] == [{"glob": str(world.folder / "runs/2026-11-21/order-*")}]
        assert job.output == str(world.folder / "merged/2026-11-21")
        assert (job.schedule, job.team, job.owner) == (made.id, "research", "ci")
        assert (job.labels, job.priority, job.overwrite, job.attempts_allowed) == (
            {"run": "nightly"},
            7,
            True,
            5,
        )
        assert job.idempotency_key == f"schedule:{made.id}:2026-11-21T03:00:00+00:00"
        tick = world.last(made)
        assert (tick.due, tick.state, tick.job) == (at("2026-11-21 03:00"), SUBMITTED, job.id)
        assert world.told == ["woken"]
        seen = world.schedules.get(made.id, None)
        assert (seen.next_due, seen.last) == (at("2026-11-22 03:00"), tick)

    def test_it_follows_its_job(self, world: World) -> None:
        made = world.create()
        for day in days(3):
            world.trained(f"{day:%Y-%m-%d}")
        ends = [(JobState.SUCCEEDED, None), (JobState.CANCELLED, None), (JobState.FAILED, "tensor-mismatch")]
        for day, (state, kind) in zip(days(3), ends, strict=True):
            world.step(day)
            world.end_jobs(state, error=kind and {"kind": kind, "message": "shapes differ"})
            world.step(day + timedelta(minutes=5))
        assert world.states(made) == [SUCCEEDED, FAILED, FAILED]
        assert [tick.reason for tick in world.ticks(made)] == [
            None,
            "the job was cancelled",
            "tensor-mismatch: shapes differ",
        ]
        assert world.last(made).changed == days(3)[2] + timedelta(minutes=5)

    def test_a_job_that_is_retried_is_followed_again(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create()
        world.step("2026-11-21 03:00")
        world.end_jobs(JobState.FAILED)
        world.step("2026-11-21 03:01")
        assert world.states(made) == [FAILED]
        Jobs(world.database).retry(world.jobs()[0].id, None)
        world.step("2026-11-21 04:00")
        assert world.states(made) == [SUBMITTED]
        world.end_jobs()
        world.step("2026-11-21 05:00")
        assert world.states(made) == [SUCCEEDED]

    def test_a_job_that_is_gone(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create()
        world.step("2026-11-21 03:00")
        with world.database.begin() as session:
            session.execute(delete(JobRow))
        world.step("2026-11-21 03:01", steps=2)
        assert (world.last(made).state, world.last(made).reason) == (FAILED, "the job is gone")

    def test_several_services_on_one_database(self, world: World) -> None:
        """Six schedulers step through ten days at once; each tick has one job."""
        made = world.create(missed="run-all")
        for day in days(10):
            world.trained(f"{day:%Y-%m-%d}")
        schedulers = [world.another() for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            for day in days(10):
                list(pool.map(lambda each, day=day: each.step(day), schedulers))
                list(pool.map(lambda each, day=day: each.step(day), schedulers))
                assert world.end_jobs() == 1
        world.step(days(10)[-1])
        assert world.states(made) == [SUCCEEDED] * 10
        assert [tick.due for tick in world.ticks(made)] == days(10)
        assert len(world.told) == 10

    def test_one_schedules_trouble_is_not_anothers(self, world: World) -> None:
        world.trained("2026-11-21")
        broken = world.create(name="broken", spec=world.spec("nothing/order-*"))
        made = world.create()
        world.step("2026-11-21 03:00")
        assert world.states(broken) == [FAILED]
        assert "source-missing" in (world.last(broken).reason or "")
        assert world.states(made) == [SUBMITTED]

    def test_its_thread_wakes_when_it_is_told(self, world: World) -> None:
        """The clock stands at the tick; the next look would be in an hour."""
        world.trained("2026-11-21")
        submitted = threading.Event()
        scheduler = Scheduler(
            world.database,
            world.settings,
            clock=lambda: at("2026-11-21 03:00"),
            wake=submitted.set,
            every=3600.0,
        )
        scheduler.start()
        try:
            world.create()
            scheduler.wake()
            assert submitted.wait(60)
        finally:
            scheduler.stop()
        assert len(world.jobs()) == 1


class TestPeople:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_pause_and_resume(self, world: World) -> None:
        for day in days(4):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create(missed="run-all")
        paused = world.schedules.pause(made.id, None, START)
        assert (paused.paused, paused.next_due) == (True, None)
        world.step("2026-11-23 12:00")
        assert world.states(made) == []
        resumed = world.schedules.resume(made.id, None, at("2026-11-23 12:00"))
        assert (resumed.paused, resumed.next_due) == (False, at("2026-11-24 03:00"))
        world.step("2026-11-23 12:00")
        assert world.states(made) == []  # what was due while it was paused was not missed
        world.step("2026-11-24 03:00")
        assert world.states(made) == [SUBMITTED]

    def test_a_tick_that_waits_is_left_alone_while_its_schedule_is_paused(self, world: World) -> None:
        made = world.create(ready=world.ready())
        world.step("2026-11-21 03:00")
        world.trained("2026-11-21", marker="_SUCCESS")
        world.schedules.pause(made.id, None)
        world.step("2026-11-21 03:30")
        assert world.states(made) == [WAITING]
        world.schedules.resume(made.id, None, at("2026-11-21 03:40"))
        world.step("2026-11-21 03:40")
        assert world.states(made) == [SUBMITTED]

    def test_run_now(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create(ready=world.ready())
        world.schedules.pause(made.id, None)
        tick = world.schedules.run(made.id, None, at("2026-11-21 02:00"))
        assert (tick.state, tick.manual) == (WAITING, True)
        with pytest.raises(WrongState, match="not over"):
            world.schedules.run(made.id, None, at("2026-11-21 02:00"))
        world.step("2026-11-21 02:00:01")
        assert world.states(made) == [LATE]  # sub-models without their marker are no sub-models
        world.trained("2026-11-21", marker="_SUCCESS")
        world.schedules.run(made.id, None, at("2026-11-21 02:00:30"))
        world.step("2026-11-21 02:00:31")
        assert world.states(made) == [LATE, SUBMITTED]
        assert world.jobs()[0].output == str(world.folder / "merged/2026-11-21")
        with pytest.raises(WrongState, match=world.jobs()[0].id):
            world.schedules.run(made.id, None, at("2026-11-21 02:01"))
        world.end_jobs()
        world.step("2026-11-21 02:02")
        world.schedules.run(made.id, None, at("2026-11-21 02:03"))
        world.step("2026-11-21 02:03:01")
        assert world.states(made) == [LATE, SUCCEEDED, SKIPPED]  # never the same inputs twice

    def test_new_settings_hold_from_now_on(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create()
        request = world.request(cron="0 4 * * *", spec=world.spec(output="other/{date}"))
        changed = world.schedules.replace(made.id, request, world.who, world.settings, at("2026-11-21 02:00"))
        assert changed.next_due == at("2026-11-21 04:00")
        world.step("2026-11-21 03:00")
        assert world.states(made) == []
        world.step("2026-11-21 04:00")
        assert world.jobs()[0].output == str(world.folder / "other/2026-11-21")

    def test_a_schedule_that_is_deleted(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create()
        world.step("2026-11-21 03:00")
        assert world.schedules.delete(made.id, None).last is not None
        world.step("2026-11-22 03:00")
        assert [job.state for job in world.jobs()] == [JobState.QUEUED]
        assert world.schedules.all(None) == []


class TestRights:
    def test_places_are_looked_at_again_at_each_tick(self, world: World) -> None:
        """What a date, or a link, makes of a place is not known when the schedule is created."""
        world.trained("2026-11-21")
        outside = world.folder.parent / f"{world.folder.name}-outside"
        write_model(outside / "order-0")
        (world.folder / "runs/2026-11-22").symlink_to(outside)
        made = world.create()
        world.step("2026-11-21 03:00")
        world.end_jobs()
        world.step("2026-11-22 03:00")
        assert world.states(made) == [SUCCEEDED, FAILED]
        assert (world.last(made).reason or "").startswith("forbidden: ")
        assert len(world.jobs()) == 1

    def test_what_needed_no_token_ends_when_tokens_are_asked_for(self, world: World) -> None:
        world.trained("2026-11-21")
        nobody = replace(world.who, read=(), write=(), anonymous=True)
        world.create(who=nobody)
        world.create(name="other", who=nobody, spec=world.spec(output="other/{date}"))
        world.step("2026-11-21 03:00")
        assert not world.jobs()
        world.scheduler = Scheduler(world.database, replace(world.settings, anonymous=True))
        world.trained("2026-11-22")
        world.step("2026-11-22 03:00")
        assert len(world.jobs()) == 2

    def test_somebody_elses_idempotency_key(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create()
        world.step("2026-11-21 03:00")
        (job,) = world.jobs()
        end_job(world.database, job.id, JobState.SUCCEEDED)
        with world.database.begin() as session:
            row = session.get(JobRow, job.id)
            assert row is not None
            row.idempotency_key = f"schedule:{made.id}:2026-11-22T03:00:00+00:00"
        world.trained("2026-11-22")
        world.step("2026-11-22 03:00")
        assert (world.last(made).reason or "").startswith(f"idempotency-conflict: job {job.id}")
