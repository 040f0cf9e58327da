"""The executor of a merge: threads of this process, or workers of a cluster that is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plait_service.cluster.connect import joined
from plait_service.cluster.resources import Resources
from plait_service.events import Events
from plait_service.executor import Executor
from plait_service.prepare import Prepared


@contextmanager
def cluster_executor(
    address: str, prepared: Prepared, resources: Resources, events: Events
) -> Iterator[Executor]:
    """Join or start the cluster, and have workers there, for the length of the block.

    Signal handlers are set inside the block: joining sets some of Ray's own.

    Raises:
        ClusterUnavailable: the cluster is not reached, or does not start.
    """
    with joined(address):
        from plait_service.cluster.executor import RayExecutor

        executor = RayExecutor(prepared, resources, events=events)
        try:
            yield executor
        finally:
            executor.close()
