"""A schedule on a real service and store: sub-models come, the service is killed, the result is named."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update

from plait.schedules import Schedule, Tick, TickPage, TickState
from plait_service.jobs.database import Database
from plait_service.jobs.records import now
from plait_service.jobs.tables import ScheduleRow
from tests.support.checkpoints import make_family
from tests.support.s3 import Bucket
from tests.support.service import Service
from tests.support.waiting import until


def test_sub_models_come_one_by_one_and_consumers_follow_one_name(bucket: Bucket, tmp_path: Path) -> None:
    family = make_family(tmp_path / "family", {"a": ("F32", (64, 8)), "b": ("F32", (9,))}, models=3)
    bucket.upload(family.root / "base", "base")
    due = now().replace(second=0, microsecond=0) - timedelta(minutes=1)
    day = f"{due:%Y-%m-%d}"
    runs = bucket.uri("runs/{date}/m*")
    request: dict[str, Any] = {
        "name": "nightly",
        "cron": f"{due.minute} {due.hour} * * *",
        "spec": {
            "models": [{"glob": runs}],
            "base": bucket.uri("base"),
            "method": {"name": "select", "resample": 2},
            "output": bucket.uri("merged/{date}"),
        },
        "ready": {"glob": runs, "count": 3, "marker": "_SUCCESS", "every": "1s", "deadline": "1h"},
        "latest": bucket.uri("merged/latest.json"),
    }
    with Service(tmp_path / "service") as service:
        with service.client() as client:
            made = Schedule.model_validate(
                client.post("/v1/schedules", json=request).raise_for_status().json()
            )

        def tick() -> Tick | None:
            with service.client() as client:
                page = TickPage.model_validate(client.get(f"/v1/schedules/{made.id}/ticks").json())
            return page.ticks[0] if page.ticks else None

        def has(state: TickState, reason: str) -> Tick | None:
            found = tick()
            return found if found and found.state is state and reason in (found.reason or "") else None

        service.stop()
        _as_if_it_was_down_at(service, made.id, due - timedelta(minutes=5))
        service.start()
        until(lambda: has(TickState.WAITING, "0 of 3 sub-models"))
        for number in range(3):
            bucket.upload(family.root / f"m{number}", f"runs/{day}/m{number}")
            if number < 2:
                bucket.put(f"runs/{day}/m{number}/_SUCCESS", b"")
                until(lambda said=f"{number + 1} of 3 sub-models": has(TickState.WAITING, said))
        service.kill()
        bucket.put(f"runs/{day}/m2/_SUCCESS", b"")
        service.start()
        done = until(lambda: (found := tick()) and found.latest and found)
        assert (done.due, done.state, done.reason) == (due, TickState.SUCCEEDED, None)
        with service.client() as client:
            (job,) = client.get("/v1/jobs", params={"schedule": made.id}).json()["jobs"]

    pointer = json.loads(bucket.get("merged/latest.json"))
    assert pointer["output"] == bucket.uri(f"merged/{day}")
    assert (pointer["job"], pointer["schedule"], pointer["due"]) == (job["id"], made.id, due.isoformat())
    manifest = json.loads(bucket.get(f"merged/{day}/plait.json"))
    assert pointer["fingerprint"] == manifest["fingerprint"]


def _as_if_it_was_down_at(service: Service, schedule: str, since: Any) -> None:
    """No test waits a minute for the clock."""
    database = Database(f"sqlite:///{service.folder / 'plait.db'}")
    with database.begin() as session:
        changed = {"considered": since, "due": since + timedelta(minutes=5)}
        session.execute(update(ScheduleRow).where(ScheduleRow.id == schedule).values(changed))
    database.close()
