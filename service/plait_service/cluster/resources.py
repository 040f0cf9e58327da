"""How many workers, how large, and on which nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plait.sizes import format_size

if TYPE_CHECKING:
    from plait_service.cluster.view import Node


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What is wanted of a cluster; see :class:`plait.spec_resources.ResourcesSpec`."""

    workers: int | None = None
    cpus: int | None = None
    memory: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def fitting(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes that would take a worker."""
        return [
            node
            for node in nodes
            if not node.draining
            and node.fits(cpus=self.cpus or 1, memory=self.memory or 0, labels=self.labels)
        ]

    def cpus_on(self, nodes: Iterable[Node]) -> int:
        """Processors of each worker, of a fixed number of them: a fair share of these nodes."""
        if self.cpus is not None:
            return self.cpus
        cpus = [node.cpus for node in nodes]
        return max(1, min(*cpus, sum(cpus) // (self.workers or len(cpus)))) if cpus else 1

    def __str__(self) -> str:
        wanted = [f"a node with {self.cpus or 1} CPU(s)"]
        if self.memory is not None:
            wanted.append(f"{format_size(self.memory)} of memory")
        wanted += [f"{key}={value}" for key, value in self.labels.items()]
        return ", ".join(wanted)
