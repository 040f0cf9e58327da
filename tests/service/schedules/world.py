"""A database with a scheduler in it, whose clock and whose runner are the test's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from plait.jobs import JobState
from plait.schedules import Schedule, ScheduleRequest, Tick, TickState
from plait.uri import parse_uri
from plait_service.api.principal import Principal
from plait_service.api.settings import Settings
from plait_service.jobs.database import Database
from plait_service.jobs.records import transition
from plait_service.jobs.tables import JobRow
from plait_service.schedules.records import Schedules
from plait_service.schedules.scheduler import Scheduler

START = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
WAITING, SUBMITTED, SUCCEEDED, FAILED = (
    TickState.WAITING,
    TickState.SUBMITTED,
    TickState.SUCCEEDED,
    TickState.FAILED,
)
SKIPPED, MISSED, LATE = TickState.SKIPPED, TickState.MISSED, TickState.LATE


def at(text: str) -> datetime:
    """A moment in UTC, such as ``2026-11-21 03:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def write_model(
    folder: Path, data: bytes = b"weights", *, config: str = "{}", marker: str | None = None
) -> Path:
    """What looks like a checkpoint to whoever lists it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text(config)
    if marker is not None:
        (folder / marker).touch()
    return folder


@dataclass
class World:
    """One service's schedules."""

    folder: Path
    database: Database
    settings: Settings
    who: Principal
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedules = Schedules(self.database)
        self.scheduler = self.another()

    def another(self) -> Scheduler:
        """As of another service on the same database."""
        return Scheduler(self.database, self.settings, wake=lambda: self.told.append("woken"))

    def spec(self, models: str = "runs/{date}/order-*", output: str = "merged/{date}") -> dict[str, Any]:
        return {
            "models": [{"glob": str(self.folder / models)}],
            "method": {"name": "average"},
            "output": str(self.folder / output),
        }

    def ready(self) -> dict[str, Any]:
        """Two sub-models of the day, each with its marker."""
        glob = str(self.folder / "runs/{date}/order-*")
        return {"glob": glob, "count": 2, "marker": "_SUCCESS", "every": "10m", "deadline": "2h"}

    def request(self, **more: Any) -> ScheduleRequest:
        given: dict[str, Any] = {"name": "nightly", "cron": "0 3 * * *", "spec": self.spec(), **more}
        return ScheduleRequest.model_validate(given)

    def create(self, moment: datetime = START, who: Principal | None = None, **more: Any) -> Schedule:
        return self.schedules.create(self.request(**more), who or self.who, self.settings, moment)

    def trained(self, day: str, count: int = 2, **more: Any) -> list[Path]:
        """Sub-models of a day."""
        return [
            write_model(self.folder / f"runs/{day}/order-{number}", f"{day} {number}".encode(), **more)
            for number in range(count)
        ]

    def step(self, moment: datetime | str, steps: int = 1) -> None:
        for _ in range(steps):
            self.scheduler.step(at(moment) if isinstance(moment, str) else moment)

    def ticks(self, schedule: Schedule) -> list[Tick]:
        """Oldest first."""
        found, cursor = [], None
        while True:
            page = self.schedules.ticks(schedule.id, None, cursor=cursor)
            found += page.ticks
            cursor = page.next
            if cursor is None:
                return found[::-1]

    def states(self, schedule: Schedule) -> list[TickState]:
        return [tick.state for tick in self.ticks(schedule)]

    def last(self, schedule: Schedule) -> Tick:
        return self.ticks(schedule)[-1]

    def jobs(self, states: Sequence[JobState] = tuple(JobState)) -> list[JobRow]:
        """Oldest first."""
        with self.database.read() as session:
            wanted = select(JobRow).where(JobRow.state.in_(states)).order_by(JobRow.id)
            return list(session.scalars(wanted))

    def end_jobs(self, state: JobState = JobState.SUCCEEDED, **more: Any) -> int:
        """What the runner does, for all that are queued; how many."""
        queued = self.jobs([JobState.QUEUED])
        for job in queued:
            end_job(self.database, job.id, state, **more)
        return len(queued)

    def latest(self, name: str = "latest.json") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name).read_bytes())
        return found


def end_job(database: Database, number: str, state: JobState, **more: Any) -> None:
    with database.begin() as session:
        row = session.get(JobRow, number)
        assert row is not None
        for name, value in more.items():
            setattr(row, name, value)
        transition(session, row, JobState.PLANNING)
        transition(session, row, state)


def make_world(folder: Path, url: str = "", *, upgrade: bool = True) -> World:
    """On SQLite, unless it is told another database."""
    settings = Settings(folder=folder, database=url, schemes=frozenset({"file", "s3"}))
    database = Database(settings.database_url)
    if upgrade:
        database.upgrade()
    place = parse_uri(str(folder))
    who = Principal(name="ci", team="research", roles=frozenset({"submit"}), read=(place,), write=(place,))
    return World(folder, database, settings, who)


def days(count: int) -> list[datetime]:
    """Ticks of the first nights."""
    return [at("2026-11-21 03:00") + timedelta(days=number) for number in range(count)]
