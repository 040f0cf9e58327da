"""Jobs straight into a service's database, and a driver that is played: nothing is merged."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from sqlalchemy import insert

from plait.jobs import JobState, TokenRequest
from plait_service.jobs.database import Database
from plait_service.jobs.tables import AttemptRow, EventRow, JobRow, LabelRow
from plait_service.jobs.tokens import Tokens

TEAMS = ("blue", "green")
RUNS = 399
"""Values of the label ``run``; 125 jobs of 50,000 have each."""
_AT_ONCE = 2000
_TABLES = (JobRow, LabelRow, AttemptRow, EventRow)
_STATES = ("succeeded",) * 17 + ("failed", "failed", "cancelled")
_ALL_STATES = frozenset(JobState)
_SAID = ("queued", "planning", "planned", "running", "claimed", "progress", "progress", "committing")
_ERROR = {"kind": "source-missing", "message": "the model is not there", "retryable": False}


def spec_of(number: int) -> dict[str, Any]:
    """Of a job: eight models and their base, somewhere in a bucket."""
    return {
        "models": [f"s3://runs/2026-11-21/{number:06d}/order-{index:02d}" for index in range(8)],
        "base": "s3://models/llama-2-7b",
        "method": {"name": "select", "resample": 4},
        "output": f"s3://models/merged/{number:06d}",
    }


def fill(folder: Path, count: int) -> list[str]:
    """A database of jobs that are over, one a minute, with attempts, labels and events; their ids."""
    database = Database(f"sqlite:///{folder / 'plait.db'}")
    database.upgrade()
    began = datetime.now(UTC) - timedelta(minutes=count)
    ids = [_id(began + timedelta(minutes=number)) for number in range(count)]
    for start in range(0, count, _AT_ONCE):
        rows: dict[type, list[dict[str, Any]]] = {table: [] for table in _TABLES}
        for number in range(start, min(start + _AT_ONCE, count)):
            for table, values in _rows(number, ids[number], began + timedelta(minutes=number)):
                rows[table].append(values)
        with database.begin() as session:
            for table in _TABLES:
                session.execute(insert(table), rows[table])
    database.close()
    return ids


def token_of(folder: Path, team: str) -> str:
    """The secret of a new token that may read and submit, for places of :func:`spec_of`."""
    database = Database(f"sqlite:///{folder / 'plait.db'}")
    wanted = TokenRequest(
        name=f"bench-{team}", team=team, roles=["submit"], read=["s3://runs/", "s3://models/"]
    )
    made = Tokens(database).create(wanted.model_copy(update={"write": ["s3://models/merged/"]}))
    database.close()
    return made.secret


def _id(moment: datetime) -> str:
    return f"j-{int(moment.timestamp() * 1000):012x}{secrets.token_hex(6)}"


def _rows(number: int, job: str, began: datetime) -> Iterator[tuple[type, dict[str, Any]]]:
    state = _STATES[number % len(_STATES)]
    ended = began + timedelta(seconds=50)
    labels = {"run": f"r{number % RUNS}", "kind": "nightly" if number % 2 else "trial"}
    yield JobRow, {**_job(number, job, state, labels), "created": began, "started": began, "ended": ended}
    for key, value in labels.items():
        yield LabelRow, {"job": job, "key": key, "value": value}
    yield (
        AttemptRow,
        {"job": job, "number": 1, "handle": f"{job}-a1", "started": began, "ended": ended, "outcome": state},
    )
    for index, kind in enumerate((*_SAID, state), 1):
        is_state = kind in _ALL_STATES
        data = {"state": kind} if is_state else {"bytes_done": index, "bytes_total": 9}
        event = {"number": index, "time": began, "kind": "state" if is_state else kind, "data": data}
        yield EventRow, {"job": job, **event}


def _job(number: int, job: str, state: str, labels: dict[str, str]) -> dict[str, Any]:
    plan = {"sub_models": 8, "parts": 842, "bytes_read": 121_279_414_272, "bytes_written": 13_476_847_616}
    result = {"status": "done", "fingerprint": f"{number:064x}", "parts_merged": 842, "shards": 3}
    return {
        "id": job,
        "kind": "merge",
        "team": TEAMS[number % 4 == 3],
        "owner": "bench",
        "state": state,
        "spec": spec_of(number),
        "output": f"s3://models/merged/{number:06d}",
        "labels": labels,
        "priority": 0,
        "overwrite": False,
        "attempts_allowed": 3,
        "attempt": 1,
        "changed": datetime.now(UTC),
        "plan": plan,
        "progress": {"bytes_done": 13_476_847_616, "bytes_total": 13_476_847_616},
        "result": result if state == "succeeded" else None,
        "error": _ERROR if state == "failed" else None,
        "cancel_requested": False,
        "last_event": len(_SAID) + 1,
    }


class PlayedDriver:
    """A job that runs, for as long as this is open: a driver is at work as far as the service can see.

    It has what a driver of this machine has: a folder with a lock that it holds and a log that it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.job = _id(datetime.now(UTC))
        place = self._place = folder / "attempts" / f"{self.job}-a1"
        place.mkdir(parents=True)
        self._lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._log = open(place / "log", "ab", buffering=0)  # noqa: SIM115 closed in __exit__
        moment = datetime.now(UTC)
        row = _job(0, self.job, "running", {}) | {"plan": None, "progress": None, "last_event": 0}
        database = Database(f"sqlite:///{folder / 'plait.db'}")
        database.upgrade()
        with database.begin() as session:
            session.execute(insert(JobRow), [{**row, "created": moment, "started": moment}])
            attempt = {"job": self.job, "number": 1, "handle": place.name, "started": moment}
            session.execute(insert(AttemptRow), [attempt])
        database.close()

    def say(self, kind: str, **data: Any) -> None:
        """Write an event, as drivers do."""
        line = {"time": datetime.now(UTC).isoformat(), "level": "info", "kind": kind, **data}
        self._log.write(json.dumps(line).encode() + b"\n")

    def end(self) -> None:
        """Be over, with success."""
        self._log.write(b'{"status": "done", "parts_merged": 842}\n')
        (self._place / "exit").write_text("0\n")
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
