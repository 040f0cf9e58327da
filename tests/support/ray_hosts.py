"""A Ray cluster over several hosts of this machine (network.py): a head, and nodes of one processor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.network import Host, Network

PORT = 6379
OBJECT_STORE = 80 * 10**6
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of every process of the cluster: what we advise for a cluster of many hosts."""
_UP_WITHIN = 90.0


class RayHosts:
    """A head now, nodes as they are added; until ``close()``, which ends the network, too.

    Args:
        network: where hosts are made.
        environment: of every process of the cluster, and of drivers.
    """

    def __init__(self, network: Network, environment: Mapping[str, str]) -> None:
        self._network = network
        self.environment = {**RAY, **environment}
        self.nodes: dict[str, Host] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._folder = Path(tempfile.mkdtemp(prefix="plait-", dir="/tmp"))  # sockets want short paths
        try:
            self.head = network.add_host("head")
            self._ray(
                *(self.head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"),
                f"--temp-dir={self._folder}",
            )
            self._wait_for(1)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Of the head, for a driver."""
        return f"{self.head.address}:{PORT}"

    def add_nodes(self, count: int, rate: float | None = None) -> None:
        """So many nodes more, of one processor each; waits until the head knows them.

        Args:
            rate: of each card in bits a second; None for no limit.
        """
        for _ in range(count):
            before = self._alive()
            name = f"node-{len(self.nodes)}"
            self.nodes[name] = self._network.add_host(name, rate=rate)
            self._ray(self.nodes[name], f"--address={self.address}", "--num-cpus=1")
            # One after another: started together on few processors, they give up on each other.
            self._wait_for(before + 1)

    def _ray(self, host: Host, *arguments: str) -> None:
        command: list[str | os.PathLike[str]] = [
            *(Path(sys.executable).with_name("ray"), "start", "--block", f"--node-ip-address={host.address}"),
            *(f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats", *arguments),
        ]
        self._processes.append(host.start(command, env=self.environment, log=self._folder / "ray-start.log"))

    def _alive(self) -> int:
        """Nodes that the head counts as alive, itself among them; 0 if it does not answer."""
        asked = self.head.start([sys.executable, "-c", _COUNT_NODES, self.address], env=self.environment)
        said, _ = asked.communicate(timeout=_UP_WITHIN)
        return int(said) if said.strip() else 0

    def _wait_for(self, alive: int) -> None:
        until = time.monotonic() + _UP_WITHIN
        while time.monotonic() < until:
            if self._alive() >= alive:
                return
            time.sleep(0.5)
        raise RuntimeError(f"the cluster does not come up\n{self.log()}")

    def log(self) -> str:
        """The end of what Ray said as its nodes were started."""
        file = self._folder / "ray-start.log"
        return file.read_text()[-2000:] if file.exists() else ""

    def close(self) -> None:
        """End all, and remove what it left."""
        self._network.close()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_COUNT_NODES = """
import sys
from ray._raylet import GcsClient
try:
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
    print(sum(node.state == 0 for node in nodes.values()))
except Exception:
    pass
"""
