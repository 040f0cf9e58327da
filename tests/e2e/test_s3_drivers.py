"""Drivers on S3 that are killed, stopped, or at work beside each other, each in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plait_service import claim
from plait_service.driver import Driver
from plait_service.existing import MANIFEST
from tests.support.driving import (
    Gate,
    Orders,
    drive,
    error_of,
    finish,
    outcome_of,
    start,
    steps_of,
    wait_until_stopped,
)
from tests.support.merging import budget_for, merge, prepared_of
from tests.support.s3_job import ReferenceJob, make_quick

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
FILES = ["README.md", "model.safetensors.index.json", "config.json", MANIFEST]
STEPS = [
    *("claim", "check", "uploads", "resume", "units", "sources", "publish"),
    *(f"complete {name}" for name in SHARDS),
    *(f"put {name}" for name in FILES[:-1]),
    *("look", f"put {MANIFEST}", "clean up"),
]


@pytest.fixture(autouse=True)
def _quick(job: ReferenceJob, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_quick(monkeypatch)
    yield
    job.clear()


def orders(job: ReferenceJob, report: Path, seed: int = 0, **options: Any) -> Orders:
    environment = job.bucket.access.environment
    # On a busy machine no driver may lose patience: what is tried here is something else.
    spec = job.spec(seed=seed, storage={"timeout": 20, "patience": 60})
    return Orders(spec=spec, report=report, environment=environment, **options)


def run_again(job: ReferenceJob, seed: int = 0, **driver: Any) -> Any:
    with job.by_proxy():
        return merge(job.spec(seed=seed, storage={"timeout": 20, "patience": 60}), **driver)


def whole_result(job: ReferenceJob, fingerprint: str) -> dict[str, bytes]:
    """The output, which has to be whole, of this merge, and alone."""
    found = job.bucket.download("out")
    assert sorted(found) == sorted([*SHARDS, *FILES])
    assert fingerprint.encode() in found[MANIFEST]
    assert fingerprint.encode() in found["README.md"]
    assert job.bucket.pending() == {job.bystander}
    assert job.bucket.etags("sources/") == job.sources
    return found


def assert_tensors(job: ReferenceJob, found: dict[str, bytes]) -> None:
    """The bytes that nothing but sources and seed decide."""
    assert [name for name in SHARDS if found[name] != job.expected[name]] == []


def test_the_steps(job: ReferenceJob) -> None:
    taken: list[str] = []
    with job.by_proxy():
        prepared = prepared_of(job.spec())
        Driver(prepared, budget_for(prepared), on_step=taken.append).run()
    assert taken == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_run_again(job: ReferenceJob, tmp_path: Path, step: str) -> None:
    """With other memory and another number of threads, too."""
    number = STEPS.index(step)
    killed = orders(job, tmp_path / "killed", kill_at=number, memory=24 << 20, threads=1)
    assert drive(killed) == -signal.SIGKILL
    assert steps_of(killed) == STEPS[: number + 1]
    there = job.visible()
    for place, name in enumerate(FILES):
        if name in there:
            assert {*SHARDS, *FILES[:place]} <= {*there}
    if number <= STEPS.index("publish") + 1:
        assert not there
    assert (MANIFEST in there) == (step == "clean up")
    outcome = run_again(job, memory=96 << 20, threads=3)
    assert_tensors(job, whole_result(job, outcome.fingerprint))
    assert outcome.already_done == (step == "clean up")
    if STEPS.index("sources") <= number < STEPS.index("clean up"):
        assert (outcome.merged_parts, outcome.resumed_parts) == (0, 3)


@pytest.mark.parametrize("step", ["uploads", "units", "publish", f"complete {SHARDS[1]}"])
def test_stopped_until_another_merge_has_the_output(
    job: ReferenceJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It wakes up when its heartbeat has expired and the other one is done; it can publish nothing."""
    asleep = orders(job, tmp_path / "asleep", stop_at=step)
    process = start(asleep)
    wait_until_stopped(process)
    monkeypatch.setattr(claim, "EXPIRY", -5.0)
    # What it had completed is not replaced in silence.
    outcome = run_again(job, seed=1, overwrite=step.startswith("complete"))
    before = job.bucket.etags("out/")
    os.kill(process.pid or 0, signal.SIGCONT)
    assert finish(process) == 1
    assert error_of(asleep)[0] == "output-claimed"
    assert job.bucket.etags("out/") == before
    whole_result(job, outcome.fingerprint)


def test_stopped_and_woken_in_the_middle_of_another_merge(
    job: ReferenceJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = orders(job, tmp_path / "asleep", stop_at="units")
    process = start(asleep)
    wait_until_stopped(process)
    monkeypatch.setattr(claim, "EXPIRY", -5.0)

    def on_step(name: str) -> None:
        if name == "publish":
            os.kill(process.pid or 0, signal.SIGCONT)
            assert finish(process) == 1
            assert not job.visible()

    outcome = run_again(job, seed=1, on_step=on_step)
    assert error_of(asleep)[0] == "output-claimed"
    whole_result(job, outcome.fingerprint)


@pytest.mark.parametrize("drivers", [2, 4])
def test_several_of_one_merge_at_once(job: ReferenceJob, tmp_path: Path, drivers: int) -> None:
    gate = Gate(tmp_path / "gate")
    all_orders = [
        orders(job, tmp_path / str(number), memory=(24 + 8 * number) << 20, threads=1 + number % 2)
        for number in range(drivers)
    ]
    processes = [start(each, gate) for each in all_orders]
    gate.open_for(drivers)
    codes = [finish(process) for process in processes]
    assert codes == [0] * drivers, [each.report.read_text() for each in all_orders]
    (fingerprint,) = {outcome_of(each).fingerprint for each in all_orders}
    run_again(job)  # one may have been late with its heartbeat when another tidied up
    assert_tensors(job, whole_result(job, fingerprint))


def test_of_two_different_merges_at_once_one_wins(job: ReferenceJob, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    both = [orders(job, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    processes = [start(each, gate) for each in both]
    gate.open_for(2)
    codes = [finish(process) for process in processes]
    assert sorted(codes) in ([0, 1], [0, 2]), [each.report.read_text() for each in both]
    winner = codes.index(0)
    assert error_of(both[1 - winner])[0] in ("output-claimed", "output-exists")
    found = whole_result(job, outcome_of(both[winner]).fingerprint)
    if winner == 0:
        assert_tensors(job, found)
