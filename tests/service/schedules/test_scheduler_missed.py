"""Ticks for which no service was there, that overlap, or that have the inputs of another."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from plait.jobs import JobState
from plait.schedules import TickState
from tests.service.schedules.world import (
    FAILED,
    MISSED,
    SKIPPED,
    START,
    SUBMITTED,
    SUCCEEDED,
    WAITING,
    World,
    at,
    days,
    write_model,
)


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
