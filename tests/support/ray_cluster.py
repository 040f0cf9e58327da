"""A real Ray cluster on this machine: a head without processors, and nodes that can be killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.s3 import use

if TYPE_CHECKING:
    from demo.weed import Weed

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # whatever the user's own clusters do
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_metrics_report_interval_ms": "500",
}
"""Of every process of the cluster, and of drivers."""
OBJECT_STORE = 80 * 10**6


class RayCluster:
    """Until ``close()``. Processes of it inherit this process's environment.

    Args:
        dashboard: whether the head also takes jobs.
    """

    def __init__(self, *, dashboard: bool = False) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._ray = ray
        # Short, as sockets lie in it.
        self._folder = Path(tempfile.mkdtemp(prefix="plait-test-", dir="/tmp"))
        self._cluster = Cluster(shutdown_at_exit=False)
        self._dashboard = dashboard
        with pytest.MonkeyPatch.context() as patched:
            # What `auto` means is said to the cluster's own processes, not to all of this machine.
            write = ray._private.utils.write_ray_address
            place = str(self._folder)
            patched.setattr("ray._private.utils.write_ray_address", lambda address: write(address, place))
            self._cluster.add_node(
                num_cpus=0,
                object_store_memory=OBJECT_STORE,
                include_dashboard=dashboard,
                temp_dir=str(self._folder),
                dashboard_port=0,
                **({"dashboard_agent_listen_port": 0}),
            )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def dashboard(self) -> str:
        return f"http://{self._cluster.webui_url}"

    def add_node(self, labels: Mapping[str, str] | None = None, **options: Any) -> Any:
        """A node of one processor."""
        options = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, **options}
        return self._cluster.add_node(labels=dict(labels or {}), temp_dir=str(self._folder), **options)

    def kill_node(self, node: Any) -> None:
        """At once, and its workers with it, as a machine that loses its power."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        workers = raylet.children(recursive=True)
        for process in (raylet, *workers):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: int = 60) -> None:
        """Give notice, as a cloud that takes a spot machine back."""
        from ray._raylet import GcsClient

        deadline = int((time.time() + seconds) * 1000)
        accepted, reason = GcsClient(address=self.address).drain_node(
            node.node_id, 2, "spot notice", deadline
        )
        assert accepted, reason

    def remove_node(self, node: Any) -> None:
        if node in self._cluster.worker_nodes:
            self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all processes, and wait for them."""
        if self._cluster.head_node is None:  # closed before
            return
        nodes = [*self._cluster.worker_nodes, self._cluster.head_node]
        pids = [info.process.pid for node in nodes for infos in node.all_processes.values() for info in infos]
        processes: list[psutil.Process] = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                processes += [process, *process.children(recursive=True)]
        self._cluster.shutdown()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster(weed: Weed) -> Iterator[RayCluster]:
    """A head that also takes jobs, and two nodes; what tests add they remove, what they kill they replace."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in ENVIRONMENT.items():
            patched.setenv(name, value)
        patched.delenv("RAY_ADDRESS", raising=False)
        use(weed.access, patched)
        cluster = RayCluster(dashboard=True)
        try:
            cluster.add_node()
            cluster.add_node()
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(scope="session")
def ray_driver(ray_cluster: RayCluster) -> Iterator[RayCluster]:
    """This process is a driver of the cluster."""
    import ray

    ray.init(ray_cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray_cluster
    finally:
        ray.shutdown()
