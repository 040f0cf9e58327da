"""What the cluster looks like: its nodes, looked at every second on a thread of its own.

A head that does not answer blocks whoever asks; the merge must notice that, not share it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ray._private.state import state as ray_state  # nothing public tells which nodes are draining

from plait.errors import ClusterUnavailable

LOOK_EVERY: Final = 1.0
_KNOCK: Final = 3.0
HEADLESS: Final = 25.0
"""Seconds without an answer from the head after which the cluster counts as gone.

Ray ends processes of its own after 60."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node that is alive. ``name`` is what events and metrics call it."""

    id: str
    name: str
    cpus: int
    memory: int
    labels: Mapping[str, str]
    draining: bool
    address: tuple[str, int]

    def answers(self) -> bool:
        """Whether anybody listens at its Ray process; the head learns late that a node is gone."""
        try:
            with socket.create_connection(self.address, timeout=_KNOCK):
                return True
        except OSError:
            return False

    def fits(self, *, cpus: int, memory: int, labels: Mapping[str, str]) -> bool:
        """Whether a worker has room here, if nobody else has taken it."""
        return (
            self.cpus >= max(1, cpus)
            and self.memory >= memory
            and all(self.labels.get(key) == value for key, value in labels.items())
        )


@dataclass(kw_only=True)
class View:
    """The nodes, as they were a second ago; closed at the end."""

    _nodes: dict[str, Node] = field(default_factory=dict)
    _seen: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._look()
        threading.Thread(target=self._keep_looking, name="plait-view", daemon=True).start()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes that are alive, by id.

        Raises:
            ClusterUnavailable: nobody answered for too long.
        """
        silent = time.monotonic() - self._seen
        if silent > HEADLESS:
            raise ClusterUnavailable(
                "the cluster's head does not answer",
                found=f"nothing for {silent:.0f} s",
                hint="Finished parts are kept: run the same command again once it is back",
            )
        return self._nodes

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _keep_looking(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            try:
                self._look()
            except Exception:  # the head is gone for now; ``nodes`` says so when it lasts
                continue

    def _look(self) -> None:
        draining = ray_state.get_draining_nodes()
        table: list[dict[str, Any]] = ray_state.node_table()  # type: ignore[no-untyped-call]
        nodes = {node["NodeID"]: _node(node, node["NodeID"] in draining) for node in table if node["Alive"]}
        self._nodes, self._seen = nodes, time.monotonic()


def _node(node: Mapping[str, Any], draining: bool) -> Node:
    resources = node["Resources"]
    return Node(
        id=node["NodeID"],
        name=f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}",
        cpus=int(resources.get("CPU", 0)),
        memory=int(resources.get("memory", 0)),
        labels=node["Labels"],
        draining=draining,
        address=(node["NodeManagerAddress"], int(node["NodeManagerPort"])),
    )
