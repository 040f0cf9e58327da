"""What befalls workers and nodes in the middle of a merge: the bytes are the same every time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from plait_service.cluster.dispatcher import Policy
from tests.support.merging import fails
from tests.support.ray_cluster import RayCluster
from tests.support.ray_merge import PARTS, QUICK, AtPart, RayJob, Watched, kill, proxied
from tests.support.s3_faults import Kind
from tests.support.waiting import until

NO_COPIES = {"deadline": 1e6, "straggler": 1e6, "unknown": 1e6}
PATIENT = Policy(silence=4.0, straggler=1e6, unknown=1e6)
"""Nothing is done twice but what a silent worker had."""
PAUSE = 0.3
"""Seconds that each part takes at least, so that there is a middle."""
LONGEST = 45.0
"""Seconds that a part waits for what a test wants to see: less than its request's timeout."""


@pytest.fixture(autouse=True)
def cleared(ray_job: RayJob) -> Iterator[None]:
    yield
    ray_job.clear()


def run_and_check(job: RayJob, watched: Watched) -> None:
    outcome = watched.run()
    assert outcome.merged_parts == PARTS
    job.check()


def test_a_worker_is_killed(ray_job: RayJob, ray_driver: RayCluster) -> None:
    at = AtPart(3, lambda: kill(next(iter(watched.workers().values()))), pause=PAUSE)
    with proxied(ray_job, at) as proxy:
        watched = Watched(ray_job.by_way_of(proxy))
        run_and_check(ray_job, watched)
    assert [event["found"] for event in watched.events if event["kind"] == "worker-lost"] == [
        "its process died"
    ]


def test_all_workers_are_killed_again_and_again(ray_job: RayJob, ray_driver: RayCluster) -> None:
    killed: set[int] = set()

    def kill_all() -> None:
        killed.update(watched.workers().values())
        for pid in watched.workers().values():
            kill(pid)

    ats = [AtPart(number, kill_all, pause=PAUSE / 3) for number in (2, 7, 13)]
    with proxied(ray_job, lambda label: [at(label) for at in ats]) as proxy:
        watched = Watched(ray_job.by_way_of(proxy))
        run_and_check(ray_job, watched)
    assert watched.kinds().count("worker-lost") == len(killed) >= 4


def test_a_node_dies_and_another_joins(ray_job: RayJob, ray_driver: RayCluster) -> None:
    doomed = ray_driver.add_node()
    added: list[Any] = []

    def replace() -> None:
        until(lambda: len(watched.workers()) == 3, LONGEST)  # nobody misses a worker that never joined
        ray_driver.kill_node(doomed)
        added.append(ray_driver.add_node(wait=False))

    def is_noticed() -> bool:
        return len(watched.workers()) == 4 and "node-lost" in watched.kinds()

    ats = [AtPart(3, replace), AtPart(8, lambda: until(is_noticed, LONGEST))]
    try:
        with proxied(ray_job, lambda label: [at(label) for at in ats]) as proxy:
            watched = Watched(ray_job.by_way_of(proxy, timeout=60))
            run_and_check(ray_job, watched)
    finally:
        ray_driver.remove_node(doomed)
        for node in added:
            ray_driver.remove_node(node)
    assert is_noticed()


def test_a_node_is_drained(ray_job: RayJob, ray_driver: RayCluster) -> None:
    """It gets nothing new, finishes what it has begun, and leaves."""
    node = ray_driver.add_node()

    def drain() -> None:
        until(lambda: len(watched.workers()) == 3, LONGEST)
        ray_driver.drain(node)

    at = AtPart(2, drain, pause=4 * PAUSE)
    try:
        with proxied(ray_job, at) as proxy:
            watched = Watched(ray_job.by_way_of(proxy, timeout=60))
            run_and_check(ray_job, watched)
    finally:
        ray_driver.remove_node(node)
    kinds = watched.kinds()
    assert kinds.index("draining") < kinds.index("node-left")
    assert "worker-lost" not in kinds


def test_a_worker_goes_silent_and_comes_back(ray_job: RayJob, ray_driver: RayCluster) -> None:
    stopped: list[tuple[int, float]] = []
    noticed: list[float] = []

    def stop() -> None:
        pid = next(iter(watched.workers().values()))
        kill(pid, signal.SIGSTOP)
        stopped.append((pid, time.monotonic()))

    def on_event(event: dict[str, Any]) -> None:
        if event["kind"] == "worker-silent":
            noticed.append(time.monotonic())

    with proxied(ray_job, AtPart(2, stop, pause=PAUSE)) as proxy:
        watched = Watched(ray_job.by_way_of(proxy), on_event=on_event, policy=PATIENT)
        try:
            run_and_check(ray_job, watched)
        finally:
            for pid, _ in stopped:
                kill(pid, signal.SIGCONT)
    assert noticed[0] - stopped[0][1] < 15


def test_a_straggler_is_done_twice(ray_job: RayJob, ray_driver: RayCluster) -> None:
    """One part is not answered at all; the other worker does it again, and nobody waits for the first."""
    with proxied(
        ray_job,
        choose=lambda label: (
            Kind.TIMEOUT
            if label.operation == "UploadPart" and "00007-of" in label.key and label.count == 1
            else None
        ),
    ) as proxy:
        watched = Watched(ray_job.by_way_of(proxy))
        began = time.monotonic()
        run_and_check(ray_job, watched)
    assert "hedged" in watched.kinds()
    assert time.monotonic() - began < 25  # the request alone would have waited for 60 s


def test_a_source_that_may_not_be_read_ends_it_at_once(ray_job: RayJob, ray_driver: RayCluster) -> None:
    denied = lambda label: (  # noqa: E731
        Kind.DENIED if label.operation == "GetObject" and label.detail.startswith("bytes=1") else None
    )
    with proxied(ray_job, choose=denied) as proxy:
        watched = Watched(ray_job.by_way_of(proxy))
        with fails("access-denied"):
            watched.run()
    assert "retried" not in watched.kinds()
    assert watched.kinds()[-1] == "failed"


def test_a_part_that_fails_everywhere_ends_it_with_its_cause(ray_job: RayJob, ray_driver: RayCluster) -> None:
    broken = lambda label: (  # noqa: E731
        Kind.INTERNAL if label.operation == "UploadPart" and "00004-of" in label.key else None
    )
    with proxied(ray_job, choose=broken) as proxy:
        watched = Watched(ray_job.by_way_of(proxy, patience=1), policy=replace(QUICK, **NO_COPIES))
        with fails("store-unavailable") as failed:
            watched.run()
    assert "00004-of" in str(failed.value)
    assert watched.kinds().count("retried") >= QUICK.attempts - 1
    assert ray_job.journalled() > 0
    Watched(ray_job.spec()).run()
    ray_job.check()


def test_a_node_without_memory(
    ray_job: RayJob, ray_driver: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray kills what runs there; each next life takes less, and the others do the work."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    node = ray_driver.add_node()
    try:
        with proxied(ray_job, AtPart(0, lambda: None, pause=2 * PAUSE)) as proxy:
            watched = Watched(ray_job.by_way_of(proxy))
            run_and_check(ray_job, watched)
    finally:
        ray_driver.remove_node(node)
    lost = [event for event in watched.events if event["kind"] == "worker-lost"]
    assert lost
    assert {event["found"] for event in lost} == {"out of memory"}
