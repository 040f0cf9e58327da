"""Jobs on a database of a test's own, and a runner whose driver is played or real."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.jobs import Job, JobKind, JobRequest
from plait_service.jobs.backends.base import DriverRequest, Life, Look
from plait_service.jobs.database import Database
from plait_service.jobs.records import Jobs, Submission


def database_at(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder / 'plait.db'}")
    database.upgrade()
    return database


def submission(
    output: str = "/out", *, team: str = "blue", key: str | None = None, **request: Any
) -> Submission:
    kind = request.pop("kind", JobKind.MERGE)
    spec = request.pop("spec", {"models": ["/a", "/b"], "method": {"name": "average"}, "output": output})
    return Submission(
        request=JobRequest(spec=spec, **request), output=output, team=team, owner="ann", kind=kind, key=key
    )


def submit(jobs: Jobs, *arguments: Any, **options: Any) -> Job:
    return jobs.submit(submission(*arguments, **options))[0]


@dataclass
class PlayedDriver:
    """What a driver is, and has written, as a test says it."""

    life: Life = Life.RUNNING
    status: int | None = None
    log: bytes = b""


@dataclass
class PlayedBackend:
    """A backend of played drivers; ``down`` is raised by all that is asked of it."""

    every: float = 0.05
    drivers: dict[str, PlayedDriver] = field(default_factory=dict)
    requests: dict[str, DriverRequest] = field(default_factory=dict)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    down: Exception | None = None

    def _check(self) -> None:
        if self.down is not None:
            raise self.down

    def start(self, handle: str, request: DriverRequest) -> None:
        self._check()
        assert handle not in self.requests, "started twice"
        self.requests[handle] = request
        self.drivers[handle] = PlayedDriver()

    def look(self, handle: str) -> Look:
        self._check()
        driver = self.drivers.get(handle)
        return Look(life=Life.ABSENT) if driver is None else Look(life=driver.life, status=driver.status)

    def read(self, handle: str, offset: int) -> bytes:
        self._check()
        return self.drivers[handle].log[offset:] if handle in self.drivers else b""

    def stop(self, handle: str, *, hard: bool) -> None:
        self._check()
        self.stopped.append((handle, hard))

    def forget(self, handle: str) -> None:
        self._check()
        self.drivers.pop(handle, None)

    def say(self, handle: str, *lines: str) -> None:
        self.drivers[handle].log += "".join(f"{line}\n" for line in lines).encode()

    def end(self, handle: str, status: int | None, *lines: str) -> None:
        self.say(handle, *lines)
        self.drivers[handle].life, self.drivers[handle].status = Life.ENDED, status
