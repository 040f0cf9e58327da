"""Merges on a real cluster: the same bytes, the command, jobs, and drivers that are stopped or killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plait_service import driver as driver_module
from plait_service import housekeeping
from plait_service.cluster.resources import Resources
from plait_service.progress import PROGRESS_KEY
from tests.e2e.test_cli import plait
from tests.support.checkpoints import make_family
from tests.support.merging import digests, fails, working_files
from tests.support.ray_cluster import RayCluster
from tests.support.ray_merge import (
    OUT,
    PARTS,
    SHAPES,
    AtPart,
    RayJob,
    Watched,
    events_of,
    proxied,
    start_plait,
)
from tests.support.waiting import until

PAUSE = 0.3
METRICS = {
    f"ray_plait_{name}_total" for name in ("bytes_read", "bytes_written", "units_done", "phase_seconds")
}


@pytest.fixture(autouse=True)
def cleared(ray_job: RayJob) -> Iterator[None]:
    yield
    ray_job.clear()


def test_the_same_bytes(ray_job: RayJob, ray_driver: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "FLUSH_EVERY", 0.05)
    monkeypatch.setattr(housekeeping, "PROGRESS_EVERY", 0.0)
    shown: list[dict[str, object]] = []

    def look() -> None:
        found = until(lambda: ray_job.bucket.etags(f"{OUT}/{PROGRESS_KEY}"))
        shown.append(json.loads(ray_job.bucket.get(next(iter(found)))))

    with proxied(ray_job, AtPart(PARTS // 2, look)) as proxy:
        watched = Watched(ray_job.by_way_of(proxy, timeout=60))
        outcome = watched.run()
    assert outcome.merged_parts == PARTS
    ray_job.check()
    kinds = watched.kinds()
    assert (kinds[:2], kinds[-2:]) == (["planned", "claimed"], ["publishing", "committed"])
    assert len(watched.workers()) == 2
    assert "worker-lost" not in kinds
    assert shown[0]["fingerprint"] == outcome.fingerprint
    assert shown[0]["phase"] == "units"
    assert 0 <= shown[0]["bytes_done"] <= shown[0]["bytes_total"]  # type: ignore[operator]
    assert set(watched.workers()) <= set(shown[0]["nodes"])  # type: ignore[call-overload]
    assert shown[0]["events"][0]["kind"] == "planned"  # type: ignore[index]


def test_metrics_for_prometheus(ray_job: RayJob, ray_driver: RayCluster) -> None:
    """Each node shows what its worker reads, writes and does, by merge."""
    import ray

    found: dict[str, float] = {}

    def is_shown() -> bool:
        found.clear()
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                for family in text_string_to_metric_families(answer.read().decode()):
                    for sample in family.samples:
                        if sample.name.startswith("ray_plait_") and sample.labels.get("job") in (None, job):
                            found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found.keys() >= METRICS

    with proxied(ray_job, AtPart(PARTS - 6, lambda: until(is_shown), pause=PAUSE)) as proxy:
        watched = Watched(ray_job.by_way_of(proxy, timeout=120))
        job = watched.fingerprint[:12]
        watched.run()
    ray_job.check()
    # Of all merges of this fingerprint that the nodes have seen: other tests', too.
    assert found["ray_plait_bytes_read_total"] > found["ray_plait_bytes_written_total"] > 0
    assert found["ray_plait_units_done_total"] > 0
    assert found["ray_plait_phase_seconds_total"] > 0


def test_a_fixed_number_of_workers_on_nodes_with_a_label(ray_job: RayJob, ray_driver: RayCluster) -> None:
    node = ray_driver.add_node({"ray.io/market-type": "spot"})
    try:
        resources = Resources(workers=1, labels={"ray.io/market-type": "spot"}, memory=64 << 20)
        watched = Watched(ray_job.spec(), resources=resources)
        watched.run()
    finally:
        ray_driver.remove_node(node)
    ray_job.check()
    assert watched.kinds().count("node-joined") == 1


def test_no_worker_is_waited_for_only_so_long(ray_job: RayJob, ray_driver: RayCluster) -> None:
    watched = Watched(ray_job.spec(), resources=Resources(labels={"disk": "fast"}), patience=2.0)
    with fails("cluster-unavailable") as failed:
        watched.run()
    assert "disk=fast" in str(failed.value)


def test_the_command(ray_job: RayJob, ray_cluster: RayCluster) -> None:
    ray_job.bucket.put("jobs/merge.yaml", json.dumps(ray_job.spec()).encode())
    command = ("merge", ray_job.bucket.uri("jobs/merge.yaml"), "--json", "--address", ray_cluster.address)
    process = start_plait(*command, **ray_job.bucket.access.environment)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(out)["parts_merged"] == PARTS
    kinds = [event["kind"] for event in events_of(errors)]
    assert kinds[-1] == "committed"
    assert kinds.count("node-joined") == 2
    ray_job.check()


def test_a_ray_job(ray_job: RayJob, ray_cluster: RayCluster) -> None:
    """The entrypoint needs no --address, and its spec may stand on the command line."""
    ray = Path(sys.executable).parent / "ray"
    command = [str(ray), "job", "submit", "--address", ray_cluster.dashboard, "--"]
    command += [sys.executable, "-m", "plait_service.driver", json.dumps(ray_job.spec())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"kind": "node-joined"' in done.stdout
    ray_job.check()


def test_a_private_cluster_leaves_nothing_behind(ray_job: RayJob, tmp_path: Path) -> None:
    family = make_family(tmp_path, SHAPES, models=2)
    spec = tmp_path / "merge.yaml"
    spec.write_text(json.dumps(family.spec()))
    assert plait("merge", spec).returncode == 0
    expected = digests(family.out)
    before = {path.name for path in Path("/tmp").glob("plait-ray-*")}
    done = plait("merge", spec, "--overwrite", "--address", "local", "--json")
    assert done.returncode == 0, done.stderr
    assert digests(family.out) == expected
    assert working_files(family.out) == []
    assert {path.name for path in Path("/tmp").glob("plait-ray-*")} <= before
    mine = [each.info["cmdline"] for each in psutil.process_iter(["cmdline"])]
    assert not [
        line for line in mine if "plait-ray-" in str(line) and not any(name in str(line) for name in before)
    ]


@pytest.mark.parametrize(
    ("address", "status", "kind"),
    [
        ("127.0.0.1:1", 1, "cluster-unavailable"),
        ("ray://127.0.0.1:10001", 2, "spec-invalid"),
        ("everywhere", 2, "spec-invalid"),
    ],
)
def test_an_address_that_is_none(tmp_path: Path, address: str, status: int, kind: str) -> None:
    family = make_family(tmp_path, {"a": ("BF16", (3, 5))})
    spec = json.dumps(family.spec())
    began = time.monotonic()
    done = plait("merge", spec, "--address", address)
    assert (done.returncode, done.stderr.split(":")[0]) == (status, kind), done.stderr
    assert time.monotonic() - began < 60
    assert not family.out.exists()


@pytest.mark.parametrize(
    "options", [("--label", "a=b"), ("--worker-cpus", "2"), ("--address", "auto", "--label", "x")]
)
def test_options_that_make_no_sense(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = plait("merge", "{}", *options)
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "spec-invalid"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_driver_ends_and_the_next_one_carries_on(
    ray_job: RayJob, ray_driver: RayCluster, number: signal.Signals
) -> None:
    process: subprocess.Popen[str] | None = None
    ended: list[float] = []

    def end() -> None:
        until(lambda: ray_job.journalled() >= 4)
        assert process is not None
        process.send_signal(number)
        ended.append(time.monotonic())

    with proxied(ray_job, AtPart(PARTS // 2, end, pause=PAUSE)) as proxy:
        spec = json.dumps(ray_job.by_way_of(proxy, timeout=60))
        command = ("merge", spec, "--address", ray_driver.address, "--json")
        process = start_plait(*command, **ray_job.bucket.access.environment)
        out, errors = process.communicate(timeout=120)
    assert time.monotonic() - ended[0] < 10
    if number == signal.SIGTERM:
        assert process.returncode == 130, errors
        assert json.loads(out)["error"]["kind"] == "cancelled"
        assert not ray_job.bucket.etags(f"{OUT}/.plait/alive-")
    kept = ray_job.journalled()
    watched = Watched(ray_job.spec())
    outcome = watched.run()
    assert outcome.resumed_parts == kept
    assert outcome.merged_parts == PARTS - kept
    ray_job.check()
