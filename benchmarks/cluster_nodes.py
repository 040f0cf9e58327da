"""A Ray cluster over several hosts of this machine, with an S3 server on one more.

The head, which has no processors, the driver and the server have cards without a limit. Nodes are added while
it runs. The server is the null server: it sends from the page cache, forgets what it is sent, and takes
next to no processor time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from common import HERE, note
from null_server import NullServer, environment_of

sys.path.append(str(HERE.parent))

from tests.support.network import FRAME, MBIT, PAYLOAD, Host, Network
from tests.support.ray_hosts import RayHosts

__all__ = ["FRAME", "MBIT", "PAYLOAD", "Cluster", "Said", "busy"]

_S3_PORT = 8333
_ASKED_WITHIN = 90.0
_MERGE = HERE / "cluster_merge.py"

Said = dict[str, Any]
"""What a merge says: ``kind`` and ``time`` (of the monotonic clock, one for the machine), and more."""


class Cluster:
    """Head, S3 server and nodes, from here to the end of a ``with`` block.

    Args:
        sources: the folder that the S3 server has as its bucket with sources.
    """

    def __init__(self, sources: Path) -> None:
        network = Network()
        try:
            server = network.add_host("s3")
            self.server = NullServer(sources, address=(server.address, _S3_PORT), start=server.start)
            environment = environment_of(f"http://{server.address}:{_S3_PORT}")
            # Workers are forked from what starts there: they find this folder's modules.
            self._ray = RayHosts(network, {**environment, "PYTHONPATH": str(HERE)})
        except BaseException:
            network.close()
            raise

    @property
    def nodes(self) -> Mapping[str, Host]:
        """By name, those that were added."""
        return self._ray.nodes

    def add_nodes(self, count: int, rate: float) -> None:
        """So many nodes more, of one processor each; waits until the head knows them.

        Args:
            rate: of each card in bits a second.
        """
        self._ray.add_nodes(count, rate)

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
        text = json.dumps({"address": self._ray.address, **wanted})
        child = self._ray.head.start([sys.executable, _MERGE, text], env=self._ray.environment)
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
        asked = self._ray.head.start([sys.executable, "-c", script, f"{self.server.endpoint}/{path}"])
        said, _ = asked.communicate(timeout=_ASKED_WITHIN)
        return said.encode()

    def close(self) -> None:
        """End all, and remove what it left."""
        self._ray.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            note(self._ray.log())
        self.close()


def busy() -> float:
    """Seconds that the machine's processors have worked since it started, all together."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    spent = [int(word) for word in words]
    return (sum(spent[:8]) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
