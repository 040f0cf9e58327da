"""Schedulers that are killed: before and after each transaction, and a hundred ticks at random moments."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

from sqlalchemy import delete, event

from plait.jobs import JobState
from plait.schedules import TickState
from plait_service.jobs.tables import JobRow
from plait_service.schedules.scheduler import Scheduler
from tests.service.schedules.world import World, at, make_world, write_model

PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.service.schedules.test_killed"])
DUE: Final = at("2026-11-21 03:00")
TICKS: Final = 100
START: Final = datetime(2026, 11, 21, tzinfo=UTC)
SPEED: Final = 600.0
"""Seconds of the scheduler's clock in a second: ten ticks."""
DEADLINE: Final = 240.0


def a_night(world: World) -> None:
    """All that a scheduler and a runner do in a night; what was done before is not done again."""
    world.step(DUE)
    world.end_jobs()
    world.step(DUE)


def dying(folder: Path, nth: int) -> None:
    """A process that is killed as it begins a transaction, or is about to commit one, for the nth time."""
    world = make_world(folder, upgrade=False)
    count = itertools.count(1)

    def die(*_: object) -> None:
        if next(count) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(world.database.engine, "begin", die)
    event.listen(world.database.engine, "commit", die)
    a_night(world)
    os._exit(0)


def test_killed_before_and_after_each_transaction(world: World) -> None:
    world.trained("2026-11-21")
    for nth in itertools.count(1):
        made = world.create(missed="run-all", latest=str(world.folder / "latest.json"))
        process = PROCESSES.Process(target=dying, args=(world.folder, nth), daemon=True)
        process.start()
        process.join(60)
        if process.exitcode != 0:
            assert process.exitcode == -signal.SIGKILL
            a_night(world)
        (tick,), (job,) = world.ticks(made), world.jobs()
        assert (tick.due, tick.state, tick.latest, tick.job) == (DUE, TickState.SUCCEEDED, True, job.id)
        assert (job.state, job.output[-10:], world.latest()["job"]) == (
            JobState.SUCCEEDED,
            "2026-11-21",
            job.id,
        )
        if process.exitcode == 0:
            break
        world.schedules.delete(made.id, None)
        with world.database.begin() as session:
            session.execute(delete(JobRow))
        (world.folder / "latest.json").unlink()
    assert nth > 20


def run(folder: Path, began: float, ready: Event) -> None:
    """A process with a scheduler in it, and a clock that goes on while it is dead."""
    world = make_world(folder, upgrade=False)
    last = START + timedelta(minutes=TICKS)

    def clock() -> datetime:
        return min(START + timedelta(seconds=(time.time() - began) * SPEED), last)

    scheduler = Scheduler(world.database, world.settings, clock=clock, every=0.005)
    ready.set()
    scheduler.start()
    time.sleep(2 * DEADLINE)


def finished(world: World, number: str) -> int:
    done = 0
    cursor = None
    while True:
        page = world.schedules.ticks(number, None, cursor=cursor, limit=200)
        done += sum(tick.state is TickState.SUCCEEDED and bool(tick.latest) for tick in page.ticks)
        cursor = page.next
        if cursor is None:
            return done


def test_a_hundred_ticks_and_a_scheduler_that_is_killed_at_random(world: World) -> None:
    for minute in range(1, TICKS + 1):
        day = START + timedelta(minutes=minute)
        write_model(world.folder / f"runs/{day:%H%M}/order-0", str(day).encode())
    made = world.create(
        START,
        cron="* * * * *",
        spec=world.spec("runs/{date:%H%M}/order-*", "merged/{date:%Y-%m-%d-%H%M}"),
        missed="run-all",
        latest=str(world.folder / "latest.json"),
    )
    draw, kills, began = random.Random(7), 0, time.time()
    while finished(world, made.id) < TICKS:
        assert time.time() - began < DEADLINE
        ready = PROCESSES.Event()
        process = PROCESSES.Process(target=run, args=(world.folder, began, ready), daemon=True)
        process.start()
        assert ready.wait(60)  # on a slow machine it would die before it did anything, again and again
        ends = time.monotonic() + draw.uniform(0.0, 0.8)
        while time.monotonic() < ends:
            world.end_jobs()  # as the runner of the service would
            time.sleep(0.002)
        process.kill()
        process.join(30)
        kills += 1
    assert kills >= 10

    dues = [START + timedelta(minutes=minute) for minute in range(1, TICKS + 1)]
    ticks = world.ticks(made)
    assert [tick.due for tick in ticks] == dues
    jobs = {job.id: job for job in world.jobs()}
    assert len(jobs) == TICKS
    assert [jobs[str(tick.job)].output[-15:] for tick in ticks] == [f"{due:%Y-%m-%d-%H%M}" for due in dues]
    assert Counter(job.idempotency_key for job in jobs.values()).most_common(1)[0][1] == 1
    assert world.latest()["job"] == ticks[-1].job
