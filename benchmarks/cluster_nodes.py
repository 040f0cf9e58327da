"""A Ray cluster over several hosts of this machine (cluster_network.py), with an S3 server on one more.

The head, which has no processors, the driver and the server have cards without a limit. Nodes are added while
it runs. The server is the null server: it sends from the page cache, forgets what it is sent, and takes
next to no processor time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster_network import Host, Network
from common import HERE, note
from null_server import NullServer, environment_of

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
_S3_PORT = 8333
_UP_WITHIN = 90.0
_MERGE = HERE / "cluster_merge.py"

Said = dict[str, Any]
"""What a merge says: ``kind`` and ``time`` (of the monotonic clock, one for the machine), and more."""


class Cluster:
    """Head, S3 server and nodes, from here to the end of a ``with`` block.

    Args:
        sources: the folder that the S3 server has as its bucket with sources.
    """

    def __init__(self, sources: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="plait-", dir="/tmp"))  # sockets want short paths
        self._network = Network()
        self._nodes: dict[str, Host] = {}
        self._processes: list[subprocess.Popen[str]] = []
        try:
            server = self._network.add_host("s3")
            self.server = NullServer(sources, address=(server.address, _S3_PORT), start=server.start)
            self._environment = {**RAY, **environment_of(f"http://{server.address}:{_S3_PORT}")}
            self._head = self._network.add_host("head")
            self._ray(
                *(self._head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"),
                f"--temp-dir={self._folder}",
            )
            self._wait_for(1)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Of the head, for a driver."""
        return f"{self._head.address}:{PORT}"

    @property
    def nodes(self) -> Mapping[str, Host]:
        """By name, those that were added."""
        return self._nodes

    def add_nodes(self, count: int, rate: float) -> None:
        """So many nodes more, of one processor each; waits until the head knows them.

        Args:
            rate: of each card in bits a second.
        """
        for _ in range(count):
            before = self._alive()
            name = f"node-{len(self._nodes)}"
            self._nodes[name] = self._network.add_host(name, rate=rate)
            self._ray(self._nodes[name], f"--address={self.address}", "--num-cpus=1")
            # One after another: started together on few processors, they give up on each other.
            self._wait_for(before + 1)

    def _ray(self, host: Host, *arguments: str) -> None:
        command = [
            *(Path(sys.executable).with_name("ray"), "start", "--block", f"--node-ip-address={host.address}"),
            *(f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats", *arguments),
        ]
        # Workers are forked from what starts here: they find this folder's modules.
        environment = {**self._environment, "PYTHONPATH": str(HERE)}
        log = self._folder / "ray-start.log"
        self._processes.append(host.start(command, env=environment, log=log))

    def _alive(self) -> int:
        """Nodes that the head counts as alive, itself among them; 0 if it does not answer."""
        asked = self._head.start([sys.executable, "-c", _COUNT_NODES, self.address], env=self._environment)
        said, _ = asked.communicate(timeout=_UP_WITHIN)
        return int(said) if said.strip() else 0

    def _wait_for(self, alive: int) -> None:
        until = time.monotonic() + _UP_WITHIN
        while time.monotonic() < until:
            if self._alive() >= alive:
                return
            time.sleep(0.5)
        log = (self._folder / "ray-start.log").read_text()[-2000:]
        raise RuntimeError(f"the cluster does not come up\n{log}")

    def merge(
        self, wanted: Mapping[str, Any], on_said: Callable[[Said], None] = lambda _said: None
    ) -> list[Said]:
        """Run one merge (cluster_merge.py) beside the head, and return what it said.

        Args:
            wanted: see there; the address is put in.
            on_said: told each line as it comes.

        Raises:
            RuntimeError: it failed.
        """
        text = json.dumps({"address": self.address, **wanted})
        child = self._head.start([sys.executable, _MERGE, text], env=self._environment)
        assert child.stdout is not None
        said: list[Said] = []
        for line in child.stdout:
            said.append(json.loads(line))
            on_said(said[-1])
        if child.wait():
            raise RuntimeError(f"the merge ended with {child.returncode}: {said[-3:]}")
        return said

    def fetch(self, path: str) -> bytes:
        """A small object on the server, as the head sees it."""
        script = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1]).read().decode())"
        asked = self._head.start([sys.executable, "-c", script, f"{self.server.endpoint}/{path}"])
        said, _ = asked.communicate(timeout=_UP_WITHIN)
        return said.encode()

    def close(self) -> None:
        """End all, and remove what it left."""
        self._network.close()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            with suppress(OSError):
                note((self._folder / "ray-start.log").read_text()[-2000:])
        self.close()


_COUNT_NODES = """
import sys
from ray._raylet import GcsClient
try:
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)
    print(sum(node.state == 0 for node in nodes.values()))
except Exception:
    pass
"""


def busy() -> float:
    """Seconds that the machine's processors have worked since it started, all together."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    spent = [int(word) for word in words]
    return (sum(spent[:8]) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
