"""Long: whatever may befall a merge on a cluster, by seeds; the bytes are those of a merge without Ray."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plait.errors import PlaitError
from tests.support.fault_table import CLUSTER, RecordProperty, note
from tests.support.merging import fails
from tests.support.ray_cluster import RayCluster
from tests.support.ray_merge import PARTS, AtPart, RayJob, Watched, kill, proxied, start_plait
from tests.support.s3 import use
from tests.support.s3_faults import Kind
from tests.support.s3_labels import Label

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

PAUSE = 0.15
"""Seconds that each part takes at least, so that there is a middle."""
SAME = "same bytes"
SEEDS = range(20)


@pytest.fixture(autouse=True)
def cleared(ray_job: RayJob) -> Iterator[None]:
    yield
    ray_job.clear()


class Strikes:
    """What befalls workers and nodes at random parts of a merge, decided by a seed."""

    def __init__(self, cluster: RayCluster, seed: int) -> None:
        self._random = random.Random(seed)
        self._cluster = cluster
        self._stopped: list[int] = []
        self._nodes = [cluster.add_node()]
        self.watched: Watched | None = None
        kinds = (self.kill_one, self.kill_all, self.stop_one, self.kill_node, self.drain_node, self.add_node)
        self.planned = [
            (self._random.randrange(1, PARTS - 4), self._random.choice(kinds))
            for _ in range(self._random.randrange(2, 6))
        ]
        self.hooks = [AtPart(number, do, pause=PAUSE / len(self.planned)) for number, do in self.planned]

    def __call__(self, label: Label) -> None:
        for hook in self.hooks:
            hook(label)

    @property
    def names(self) -> list[str]:
        return [do.__name__.replace("_", " ") for _, do in self.planned]

    def _pids(self) -> list[int]:
        assert self.watched is not None
        return list(self.watched.workers().values())

    def kill_one(self) -> None:
        for pid in self._pids()[:1]:
            kill(pid)

    def kill_all(self) -> None:
        for pid in self._pids():
            kill(pid)

    def stop_one(self) -> None:
        pid = self._random.choice(self._pids() or [0])
        if pid:
            self._stopped.append(pid)
            kill(pid, signal.SIGSTOP)

    def kill_node(self) -> None:
        if self._nodes:
            self._cluster.kill_node(self._nodes.pop())

    def drain_node(self) -> None:
        if self._nodes:
            self._cluster.drain(self._nodes[-1])

    def add_node(self) -> None:
        self._nodes.append(self._cluster.add_node(wait=False))

    def end(self) -> None:
        for pid in self._stopped:
            kill(pid, signal.SIGCONT)
        for node in self._nodes:
            self._cluster.remove_node(node)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_strikes(
    ray_job: RayJob, ray_driver: RayCluster, record_property: RecordProperty, seed: int
) -> None:
    strikes = Strikes(ray_driver, seed)
    try:
        with proxied(ray_job, strikes) as proxy:
            strikes.watched = Watched(ray_job.by_way_of(proxy, timeout=60))
            outcome = strikes.watched.run()
    finally:
        strikes.end()
    assert outcome.merged_parts + outcome.resumed_parts == PARTS, (seed, strikes.names)
    ray_job.check()
    note(record_property, [(f"in random order: {name}", SAME) for name in strikes.names], title=CLUSTER)


# A request in which the driver is killed, before or after its effect: one of each step.
MOMENTS = {
    "claim": ("PutObject", "claim-"),
    "uploads begun": ("CreateMultipartUpload", "out/model"),
    "uploads shared": ("PutObject", "uploads-"),
    "first part": ("UploadPart", "out/model"),
    "journal": ("PutObject", "journal-"),
    "shards": ("CompleteMultipartUpload", "out/model"),
    "index": ("PutObject", "model.safetensors.index.json"),
    "manifest": ("PutObject", "plait.json"),
    "clean up": ("DeleteObject", "claim-"),
}


class KillsDriver:
    """Kills a driver's process, and perhaps a worker with it, in a request."""

    def __init__(self, operation: str, part_of_key: str, *, count: int = 1, worker: bool = False) -> None:
        self._wanted = (operation, part_of_key, count)
        self._worker = worker
        self._lock = threading.Lock()
        self._seen = 0
        self.process: subprocess.Popen[str] | None = None
        self.events: list[dict[str, Any]] = []
        self.struck = False

    @property
    def before_uploads_are_listed(self) -> bool:
        """Whether the driver may leave uploads that nobody knows of."""
        return self._wanted[:2] in (MOMENTS["uploads begun"], MOMENTS["uploads shared"])

    def __call__(self, label: Label) -> None:
        operation, part_of_key, count = self._wanted
        if label.operation != operation or part_of_key not in label.key:
            return
        with self._lock:
            self._seen += 1
            if self._seen != count:
                return
            self.struck = True
        if self._worker:
            for event in list(self.events):
                if event["kind"] == "node-joined":
                    kill(event["pid"])
                    break
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def kill_driver(job: RayJob, cluster: RayCluster, killer: KillsDriver, *, before: bool) -> None:
    """Run the command until it is killed; then once more, to the end."""

    def choose(label: Label) -> Kind | None:
        if before:
            killer(label)
        return None

    after: Callable[[Label], None] = (lambda _label: None) if before else killer
    with proxied(job, after, choose) as proxy:
        spec = json.dumps(job.by_way_of(proxy, timeout=60))
        killer.process = start_plait(
            "merge", spec, "--address", cluster.address, **job.bucket.access.environment
        )
        assert killer.process.stderr is not None
        for line in killer.process.stderr:
            if line.startswith("{"):
                killer.events.append(json.loads(line))
        killer.process.wait(timeout=120)
    assert killer.struck
    outcome = Watched(job.spec()).run()
    assert outcome.already_done or outcome.merged_parts + outcome.resumed_parts == PARTS
    job.check(unlisted=killer.before_uploads_are_listed)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_driver_is_killed_at_each_step(
    ray_job: RayJob, ray_driver: RayCluster, record_property: RecordProperty, moment: str, before: bool
) -> None:
    kill_driver(ray_job, ray_driver, KillsDriver(*MOMENTS[moment]), before=before)
    note(record_property, [(f"driver killed: {moment}", SAME)], title=CLUSTER)


@pytest.mark.parametrize("seed", range(4))
def test_the_driver_is_killed_at_a_random_part_with_a_worker(
    ray_job: RayJob, ray_driver: RayCluster, record_property: RecordProperty, seed: int
) -> None:
    count = random.Random(seed).randrange(1, PARTS)
    killer = KillsDriver("UploadPart", "out/model", count=count, worker=True)
    kill_driver(ray_job, ray_driver, killer, before=False)
    note(record_property, [("driver and worker killed at once", SAME)], title=CLUSTER)


def test_s3_is_down_for_20_seconds(
    ray_job: RayJob, ray_driver: RayCluster, record_property: RecordProperty
) -> None:
    since: list[float] = []
    at = AtPart(5, lambda: since.append(time.monotonic()))

    def choose(_label: Label) -> Kind | None:
        return Kind.RESET if since and time.monotonic() - since[0] < 20 else None

    with proxied(ray_job, at, choose) as proxy:
        watched = Watched(ray_job.by_way_of(proxy, timeout=10, patience=120))
        outcome = watched.run()
    assert time.monotonic() - since[0] > 20
    assert outcome.merged_parts == PARTS
    ray_job.check()
    note(record_property, [("S3 down for 20 s", SAME)], title=CLUSTER)


@pytest.mark.parametrize("method", ["PushTask", "KillActor"])
def test_one_message_in_ten_is_lost(
    ray_job: RayJob,
    ray_cluster: RayCluster,
    ray_driver: RayCluster,
    record_property: RecordProperty,
    method: str,
) -> None:
    """Of what the driver and workers tell each other: requests and answers."""
    odds = {"num_failures": 200, "req_failure_prob": 10, "resp_failure_prob": 10}
    failing = json.dumps({f"CoreWorkerService.grpc_client.{method}": odds})
    spec = json.dumps(ray_job.spec())
    process = start_plait(
        *("merge", spec, "--address", ray_cluster.address, "--json"),
        **ray_job.bucket.access.environment,
        RAY_testing_rpc_failure=failing,
    )
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(out)["parts_merged"] == PARTS
    ray_job.check()
    note(record_property, [(f"a tenth of Ray's messages lost ({method})", SAME)], title=CLUSTER)


def test_the_head_is_lost_and_comes_back(
    ray_job: RayJob, record_property: RecordProperty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge ends, if need be by Ray's own hand; on another cluster the next one carries on."""
    use(ray_job.bucket.access, monkeypatch)  # nodes begin with these
    first, second = RayCluster(), None
    try:
        first.add_node()
        process: subprocess.Popen[str] | None = None
        with proxied(ray_job, AtPart(PARTS // 2, first.close, pause=3 * PAUSE)) as proxy:
            spec = json.dumps(ray_job.by_way_of(proxy, timeout=60))
            process = start_plait(
                *("merge", spec, "--address", first.address), **ray_job.bucket.access.environment
            )
            _, errors = process.communicate(timeout=240)
        assert process.returncode == 1, errors
        assert "Traceback" not in errors
        kept = ray_job.journalled()
        assert kept > 0
        second = RayCluster()
        second.add_node()
        process = start_plait(
            *("merge", json.dumps(ray_job.spec()), "--address", second.address, "--json"),
            **ray_job.bucket.access.environment,
        )
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert json.loads(out)["parts_resumed"] == kept
    finally:
        first.close()
        if second is not None:
            second.close()
    ray_job.check()
    note(record_property, [("head lost, another cluster carries on", SAME)], title=CLUSTER)


def test_a_merge_that_fails_leaves_no_upload(ray_job: RayJob, ray_driver: RayCluster) -> None:
    """S3 stays away for good: the merge says so, and `clean` has nothing of ours to find but its claim."""
    gone: list[bool] = []
    with proxied(
        ray_job, AtPart(4, lambda: gone.append(True)), lambda _label: Kind.RESET if gone else None
    ) as proxy:
        watched = Watched(ray_job.by_way_of(proxy, timeout=5, patience=3))
        with fails("store-unavailable"):
            watched.run()
    try:
        Watched(ray_job.spec()).run()
    except PlaitError as error:  # pragma: no cover - says why
        pytest.fail(f"the next merge does not carry on: {error}")
    ray_job.check()
