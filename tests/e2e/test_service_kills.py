"""The service is killed again and again, with many jobs in flight: none is lost, and none is merged twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plait import Client
from plait.errors import WrongState
from plait.jobs import Job, JobState
from plait_service.driver import Driver
from tests.support.checkpoints import Family, make_family
from tests.support.fault_table import SERVICE, RecordProperty, note
from tests.support.merging import budget_for, digests, prepared_of
from tests.support.service import Service

SHAPES = {"a": ("BF16", (300, 300)), "b": ("F32", (1000,))}
GOOD, WRONG, CANCELLED = "a merge", "a merge of what is not there", "a merge that is cancelled"


@dataclass
class Crowd:
    """Keeps so many jobs open until it is told to end; knows what each should come to."""

    client: Client
    family: Family
    open_at_once: int
    expected: dict[str, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                if sum(
                    1 for _ in self.client.jobs(state=["queued", "planning", "running", "committing"])
                ) >= (self.open_at_once):
                    time.sleep(0.1)
                    continue
                self.submit(len(self.expected))
        except BaseException as error:
            self.error = error

    def submit(self, number: int) -> None:
        kind = (GOOD, GOOD, WRONG, GOOD, CANCELLED)[number % 5]
        output = str(self.family.root / f"out-{number}")
        spec = self.family.spec(output=output, part_size="64KiB")
        if kind == WRONG:
            spec["base"] = str(self.family.root / "nowhere")
        key = f"crowd-{number}"
        job = self.client.submit(spec, idempotency_key=key, attempts=5)
        assert self.client.submit(spec, idempotency_key=key, attempts=5).id == job.id
        self.expected[job.id] = kind
        if kind == CANCELLED:
            with suppress(WrongState):  # it was done before the service could listen
                job.cancel()


def kill_and_see(folder: Path, kills: int, open_at_once: int, seed: int) -> list[tuple[str, str]]:
    moments = random.Random(seed)
    family = make_family(folder / "models", SHAPES)
    prepared = prepared_of(family.spec(output=str(folder / "alone"), part_size="64KiB"))
    Driver(prepared, budget_for(prepared)).run()
    with Service(folder / "service", "--slots", "3") as service, Client(service.url, patience=120) as client:
        crowd = Crowd(client, family, open_at_once)
        thread = threading.Thread(target=crowd.run, daemon=True)
        thread.start()
        for _ in range(kills):
            time.sleep(moments.uniform(0, 1.5))
            service.kill()
            service.start()
        crowd.ended.set()
        thread.join(120)
        assert not thread.is_alive()
        assert crowd.error is None, crowd.error
        found = {number: client.job(number).wait(180) for number in crowd.expected}
        assert {job.id for job in client.jobs()} == set(crowd.expected)
        logs = service.attempt_logs()
    for number, job in found.items():
        check(job, crowd.expected[number], logs, folder / "alone")
    return [(crowd.expected[number], job.state.value) for number, job in found.items()]


def check(job: Job, kind: str, logs: dict[str, str], alone: Path) -> None:
    """The right state; one attempt, as its driver outlives the service; one commit, of the right bytes."""
    right = {
        GOOD: {JobState.SUCCEEDED},
        WRONG: {JobState.FAILED},
        CANCELLED: {JobState.CANCELLED, JobState.SUCCEEDED},
    }
    assert job.state in right[kind], job
    assert len(job.attempts) <= 1, job.attempts
    lines = [
        json.loads(line)
        for handle, log in logs.items()
        if handle.startswith(job.id)
        for line in log.splitlines()
        if line.startswith("{")
    ]
    kinds = Counter(line.get("kind") for line in lines)
    assert kinds["already-done"] == 0
    assert kinds["committed"] == (job.state is JobState.SUCCEEDED)
    if job.state is JobState.SUCCEEDED:
        shard = "model.safetensors"
        assert digests(Path(job.output))[shard] == digests(alone)[shard]
    if kind == WRONG:
        assert job.error is not None
        assert job.error.kind == "source-missing"


def test_killed_again_and_again(tmp_path: Path, record_property: RecordProperty) -> None:
    outcomes = kill_and_see(tmp_path, kills=6, open_at_once=8, seed=0)
    note(record_property, outcomes, title=SERVICE)
    assert outcomes.count((GOOD, "succeeded")) >= 3
    assert (WRONG, "failed") in outcomes


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_killed_30_times_with_20_jobs_in_flight(tmp_path: Path, record_property: RecordProperty) -> None:
    outcomes = kill_and_see(tmp_path, kills=30, open_at_once=20, seed=1)
    note(record_property, outcomes, title=SERVICE)
    assert len(outcomes) >= 30
