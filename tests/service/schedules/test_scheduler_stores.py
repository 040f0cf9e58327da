"""Sub-models that are waited for, the pointer to the newest result, stores that do not answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from plait.jobs import JobState
from plait.uri import parse_uri
from plait_service.jobs.records import Jobs
from plait_service.schedules.scheduler import Scheduler
from tests.service.schedules.world import FAILED, LATE, SUBMITTED, SUCCEEDED, WAITING, World, at, days


class TestReady:
    def test_it_waits_for_sub_models(self, world: World) -> None:
        made = world.create(ready=world.ready())
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
        made = world.create(ready=world.ready())
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
        made = world.create(ready=world.ready())
        world.step("2026-11-21 09:00")
        assert world.states(made) == [SUBMITTED]

    def test_a_glob_that_is_refused_by_then(self, world: World) -> None:
        made = world.create(ready=world.ready())
        world.scheduler = Scheduler(world.database, replace(world.settings, schemes=frozenset({"s3"})))
        world.step("2026-11-21 03:00")
        assert world.states(made) == [FAILED]
        assert "forbidden" in (world.last(made).reason or "")


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
