"""What the scheduler does at each moment; the clock and the ends of jobs are the test's."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete

from plait.errors import WrongState
from plait.jobs import JobState
from plait.schedules import TickState
from plait.uri import parse_uri
from plait_service.jobs.records import Jobs
from plait_service.jobs.tables import JobRow
from plait_service.schedules.scheduler import Scheduler
from tests.service.schedules.world import START, World, at, days, end_job, write_model

WAITING, SUBMITTED, SUCCEEDED, FAILED = (
    TickState.WAITING,
    TickState.SUBMITTED,
    TickState.SUCCEEDED,
    TickState.FAILED,
)
SKIPPED, MISSED, LATE = TickState.SKIPPED, TickState.MISSED, TickState.LATE
READY = {"count": 2, "marker": "_SUCCESS", "every": "10m", "deadline": "2h"}


def ready(world: World) -> dict[str, object]:
    return {**READY, "glob": str(world.folder / "runs/{date}/order-*")}


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


class TestMissed:
    @pytest.mark.parametrize(
        ("missed", "states"),
        [
            ("run-last", [MISSED, MISSED, SUBMITTED]),
            ("run-all", [SUBMITTED, WAITING, WAITING]),
            ("skip", [MISSED, MISSED, MISSED]),
        ],
    )
    def test_after_three_nights_without_a_service(
        self, world: World, missed: str, states: list[TickState]
    ) -> None:
        for day in days(4):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create(missed=missed)
        world.step("2026-11-23 12:00", steps=2)
        assert world.states(made) == states
        assert [tick.due for tick in world.ticks(made)] == days(3)
        for _ in range(3):
            world.end_jobs()
            world.step("2026-11-23 12:05")
        world.step("2026-11-24 03:00")
        world.end_jobs()
        world.step("2026-11-24 03:05")
        done = [SUCCEEDED if state in (WAITING, SUBMITTED) else state for state in states]
        assert world.states(made) == [*done, SUCCEEDED]

    def test_all_run_one_after_another_in_their_order(self, world: World) -> None:
        for day in days(4):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create(missed="run-all")
        for number in range(4):
            world.step("2026-11-24 12:00", steps=2)
            assert len(world.jobs([JobState.QUEUED])) == 1
            states = [SUCCEEDED] * number + [SUBMITTED] + [WAITING] * (3 - number)
            assert world.states(made) == states
            if number < 3:
                assert (world.ticks(made)[number + 1].reason or "").startswith("overlap")
            world.end_jobs()
        assert [job.output[-10:] for job in world.jobs()] == [f"{day:%Y-%m-%d}" for day in days(4)]

    def test_a_tick_that_is_a_little_late_was_not_missed(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create(missed="skip")
        world.step("2026-11-21 03:00:59")
        assert world.states(made) == [SUBMITTED]

    def test_of_very_many_the_newest_are_noticed(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = world.create(cron="* * * * *")
        with caplog.at_level(logging.WARNING, "plait"):
            world.step(START + timedelta(minutes=1500))
        ticks = world.ticks(made)
        assert len(ticks) == 1000
        assert ticks[-1].due == START + timedelta(minutes=1500)
        assert "500 ticks are too long ago" in caplog.text

    def test_nightly_when_clocks_change(self, world: World) -> None:
        """Looked at every half hour for four nights in March, and in October."""
        made = world.create(
            at("2026-03-26 22:00"),
            cron="30 2 * * *",
            timezone="Europe/Berlin",
            spec=world.spec("runs/order-*"),
        )
        other = world.create(
            at("2026-10-22 22:00"),
            name="autumn",
            cron="30 2 * * *",
            timezone="Europe/Berlin",
            spec=world.spec("runs/order-*"),
        )
        for start, schedule in ((at("2026-03-26 22:00"), made), (at("2026-10-22 22:00"), other)):
            for half in range(4 * 48):
                write_model(world.folder / "runs/order-0", f"{start} {half}".encode())
                world.step(start + timedelta(minutes=30 * half))
                if world.end_jobs():
                    assert world.jobs()[-1].schedule == schedule.id
            if schedule is made:
                world.schedules.pause(made.id, None)
        assert [f"{tick.due:%d %H:%M}" for tick in world.ticks(made)] == [
            "27 01:30",
            "28 01:30",
            "29 01:00",
            "30 00:30",
        ]
        assert [f"{tick.due:%d %H:%M}" for tick in world.ticks(other)] == [
            "23 00:30",
            "24 00:30",
            "25 00:30",
            "26 01:30",
        ]
        outputs = [job.output[-10:] for job in world.jobs() if job.schedule == made.id]
        assert outputs == ["2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30"]


class TestOverlap:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_a_tick_is_skipped_while_the_job_before_it_runs(self, world: World) -> None:
        for day in days(3):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create()
        world.step(days(3)[0])
        world.step(days(3)[1])
        assert world.states(made) == [SUBMITTED, SKIPPED]
        assert (world.last(made).reason or "").startswith("overlap")
        world.end_jobs()
        world.step(days(3)[2])
        assert world.states(made) == [SUCCEEDED, SKIPPED, SUBMITTED]
        assert len(world.jobs()) == 2

    def test_schedules_do_not_hinder_each_other(self, world: World) -> None:
        world.trained("2026-11-21")
        one, other = (
            world.create(name="one"),
            world.create(name="other", spec=world.spec(output="other/{date}")),
        )
        world.step("2026-11-21 03:00")
        assert world.states(one) == world.states(other) == [SUBMITTED]


class TestInputs:
    @pytest.fixture
    def world(self, world_of_each: World) -> World:
        return world_of_each

    def test_the_same_inputs_are_merged_once(self, world: World) -> None:
        """The sub-models are the same on the second night, though the output has another name."""
        write_model(world.folder / "runs/order-0")
        made = world.create(spec=world.spec("runs/order-*"))
        for number, day in enumerate(days(4)):
            if number == 2:
                write_model(world.folder / "runs/order-0", b"others")
            world.step(day)
            world.end_jobs()
            world.step(day + timedelta(hours=1))
        assert world.states(made) == [SUCCEEDED, SKIPPED, SUCCEEDED, SKIPPED]
        reason = world.ticks(made)[1].reason or ""
        assert reason == f"the same inputs as at 2026-11-21T03:00:00+00:00, job {world.jobs()[0].id}"

    def test_inputs_of_a_job_that_failed_are_tried_again(self, world: World) -> None:
        write_model(world.folder / "runs/order-0")
        made = world.create(spec=world.spec("runs/order-*"))
        world.step(days(2)[0])
        world.end_jobs(JobState.FAILED)
        world.step(days(2)[1])
        assert world.states(made) == [FAILED, SUBMITTED]


class TestReady:
    def test_it_waits_for_sub_models(self, world: World) -> None:
        made = world.create(ready=ready(world))
        world.step("2026-11-21 03:00")
        tick = world.last(made)
        assert (tick.state, tick.job) == (WAITING, None)
        assert (tick.reason or "").startswith("0 of 2 sub-models are ready")
        world.trained("2026-11-21")
        world.step("2026-11-21 03:10")
        assert (world.last(made).reason or "").startswith("0 of 2 sub-models are ready")
        for folder in (world.folder / "runs/2026-11-21").iterdir():
            (folder / "_SUCCESS").touch()
        world.step("2026-11-21 03:19:59")
        assert world.states(made) == [WAITING]  # it looks every ten minutes
        world.step("2026-11-21 03:20")
        assert world.states(made) == [SUBMITTED]
        assert world.last(made).reason is None

    def test_after_the_deadline_it_is_late_and_says_so(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.trained("2026-11-21", count=1, marker="_SUCCESS")
        made = world.create(ready=ready(world))
        with caplog.at_level(logging.WARNING, "plait"):
            for minute in range(0, 120, 5):
                world.step(at("2026-11-21 03:00") + timedelta(minutes=minute))
            assert not caplog.records
            assert world.states(made) == [WAITING]
            world.step("2026-11-21 05:00")
        tick = world.last(made)
        assert (tick.state, tick.changed) == (LATE, at("2026-11-21 05:00"))
        assert (tick.reason or "").startswith("1 of 2 sub-models are ready")
        assert "late: 1 of 2 sub-models" in caplog.text
        world.trained("2026-11-21", marker="_SUCCESS")
        world.step("2026-11-21 06:00")
        assert world.states(made) == [LATE]
        assert not world.jobs()

    def test_it_looks_once_more_before_it_is_late(self, world: World) -> None:
        """The service was away from before the tick until after the deadline."""
        world.trained("2026-11-21", marker="_SUCCESS")
        made = world.create(ready=ready(world))
        world.step("2026-11-21 09:00")
        assert world.states(made) == [SUBMITTED]

    def test_a_glob_that_is_refused_by_then(self, world: World) -> None:
        made = world.create(ready=ready(world))
        world.scheduler = Scheduler(world.database, replace(world.settings, schemes=frozenset({"s3"})))
        world.step("2026-11-21 03:00")
        assert world.states(made) == [FAILED]
        assert "forbidden" in (world.last(made).reason or "")


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
        made = world.create(ready=ready(world))
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
        made = world.create(ready=ready(world))
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


class TestLatest:
    def test_it_is_moved_after_success(self, world: World) -> None:
        for day in days(3):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create(latest=str(world.folder / "latest.json"))
        world.step(days(3)[0])
        assert not (world.folder / "latest.json").exists()
        world.end_jobs(JobState.SUCCEEDED, result={"fingerprint": "f" * 64})
        world.step("2026-11-21 04:00")
        job = world.jobs()[0]
        assert world.latest() == {
            "output": str(world.folder / "merged/2026-11-21"),
            "job": job.id,
            "schedule": made.id,
            "due": "2026-11-21T03:00:00+00:00",
            "fingerprint": "f" * 64,
            "updated": "2026-11-21T04:00:00+00:00",
        }
        assert world.last(made).latest
        world.step(days(3)[1])
        world.end_jobs(JobState.FAILED)
        world.step("2026-11-22 04:00")
        assert world.latest()["job"] == job.id
        assert world.last(made).latest is None

    def test_a_retry_of_an_older_tick_does_not_move_it_back(self, world: World) -> None:
        for day in days(2):
            world.trained(f"{day:%Y-%m-%d}")
        made = world.create(latest=str(world.folder / "latest.json"))
        for day, state in zip(days(2), (JobState.FAILED, JobState.SUCCEEDED), strict=True):
            world.step(day)
            world.end_jobs(state)
            world.step(day)
        first, second = world.jobs()
        assert world.latest()["job"] == second.id
        Jobs(world.database).retry(first.id, None)
        world.end_jobs()
        world.step("2026-11-22 05:00", steps=2)
        assert world.latest()["job"] == second.id
        tick = world.ticks(made)[0]
        assert (tick.state, tick.latest) == (SUCCEEDED, False)
        assert tick.reason == "latest: a newer result is there already"

    def test_what_lies_there_already_is_left_alone(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.trained("2026-11-21")
        (world.folder / "latest.json").write_text("mine")
        made = world.create(latest=str(world.folder / "latest.json"))
        world.step("2026-11-21 03:00")
        world.end_jobs()
        with caplog.at_level(logging.WARNING, "plait"):
            world.step("2026-11-21 03:05", steps=2)
        assert (world.folder / "latest.json").read_text() == "mine"
        assert (world.last(made).state, world.last(made).latest) == (SUCCEEDED, False)
        assert "output-exists" in (world.last(made).reason or "")
        assert caplog.text.count("output-exists") == 1

    def test_a_store_that_does_not_answer_is_asked_again(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.trained("2026-11-21")
        made = world.create(latest=str(world.folder / "latest.json"))
        world.step("2026-11-21 03:00")
        world.end_jobs()
        (world.folder / "latest.json").symlink_to("latest.json")  # a loop: neither there nor absent
        world.step("2026-11-21 03:05")
        assert not world.last(made).latest
        assert "store-unavailable" in (world.last(made).reason or "")
        (world.folder / "latest.json").unlink()
        world.step("2026-11-21 03:05:29")
        assert not world.last(made).latest
        world.step("2026-11-21 03:05:30")
        assert world.last(made).latest
        assert world.last(made).reason is None

    def test_a_place_that_may_not_be_written_any_more(self, world: World) -> None:
        world.trained("2026-11-21")
        made = world.create(latest=str(world.folder / "pointers/latest.json"))
        world.step("2026-11-21 03:00")
        world.end_jobs()
        outside = world.folder.parent / f"{world.folder.name}-outside"
        outside.mkdir()
        (world.folder / "pointers").symlink_to(outside)
        world.step("2026-11-21 03:05")
        assert "latest: forbidden" in (world.last(made).reason or "")
        assert not list(outside.iterdir())


class TestStores:
    def test_a_store_that_does_not_answer_is_asked_again_for_an_hour(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody listens at this endpoint."""
        for name, value in {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "eu-1",
        }.items():
            monkeypatch.setenv(name, value)
        bucket = parse_uri("s3://bucket/")
        who = replace(world.who, read=(bucket,), write=(bucket,))
        spec = {
            "models": ["s3://bucket/a", "s3://bucket/b"],
            "method": {"name": "average"},
            "output": "s3://bucket/merged/{date}",
            "storage": {"patience": 0},
        }
        made = world.create(who=who, spec=spec)
        world.step("2026-11-21 03:00")
        assert world.states(made) == [WAITING]
        assert "store-unavailable" in (world.last(made).reason or "")
        world.step("2026-11-21 03:59")
        assert world.states(made) == [WAITING]
        world.step("2026-11-21 04:00")
        assert world.states(made) == [FAILED]
