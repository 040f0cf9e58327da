"""Runs units on a Ray cluster: the executor that takes the place of threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from plait import __version__
from plait_service.cluster.actor import DriverCounters, WorkerActor
from plait_service.cluster.dispatcher import Policy
from plait_service.cluster.messages import Setup, boot_id
from plait_service.cluster.pool import Pool
from plait_service.cluster.ray_errors import ray_errors
from plait_service.cluster.resources import Resources
from plait_service.cluster.round import Cluster, Round
from plait_service.cluster.view import View
from plait_service.events import Events
from plait_service.executor import Work
from plait_service.prepare import Prepared

PATIENCE: Final = 600.0
"""Seconds without any worker after which a merge ends: longer than a node takes to be had."""


class RayExecutor:
    """Runs units on actors. Its process is a driver of a Ray cluster already.

    Args:
        prepared: the merge; workers open its stores anew, from their URIs, with their own credentials.
        resources: how many workers, how large, where.
        events: told what happens to workers and units.
        policy: of retries, deadlines and copies.
        patience: seconds without any worker after which it gives up.
        actor: the class of workers; benchmarks have one that does nothing.
    """

    def __init__(
        self,
        prepared: Prepared,
        resources: Resources,
        *,
        events: Events | None = None,
        policy: Policy | None = None,
        patience: float = PATIENCE,
        actor: type[WorkerActor] = WorkerActor,
    ) -> None:
        job = prepared.plan.job
        setup = Setup(
            version=__version__,
            boot=boot_id(),
            sources=prepared.source_uris,
            output=prepared.plan.spec.output,
            storage=prepared.plan.spec.storage,
            memory=resources.memory,
            cpus=resources.cpus or 0,
        )
        with ray_errors("sending the plan to the cluster", "Ray"):
            self._cluster = Cluster(
                job=job,
                pool=Pool(setup, job, resources, actor),
                view=View(),
                resources=resources,
                events=events or Events(job.fingerprint),
                counters=DriverCounters(job.fingerprint[:12]),
                policy=policy,
                patience=patience,
            )
        self._rounds = 0

    def run(self, work: Work) -> None:
        """As the protocol says.

        Raises:
            ClusterUnavailable: there was no worker for too long, or the head is gone.
            ClusterUnsuitable: a worker could not make the same bytes.
            WorkerLost: workers die of a part.
            PlaitError: of a unit that failed everywhere.
        """
        if not work.units:
            return
        self._rounds += 1
        try:
            with ray_errors("merging on the cluster", "Ray"):
                Round(self._cluster, work, self._rounds).run()
        except BaseException:
            work.stop.set()
            self._cluster.pool.close()
            raise

    def state(self) -> Mapping[str, Any]:
        """Workers, and by node what they have read and written."""
        nodes: dict[str, dict[str, int]] = {}
        lives = self._cluster.pool.lives
        for life in lives:
            found = nodes.setdefault(life.place.name, {"workers": 0, "bytes_read": 0, "bytes_written": 0})
            found["workers"] += life.hello is not None
            found["bytes_read"] += life.read
            found["bytes_written"] += life.written
        workers = sum(life.hello is not None for life in lives)
        return {"workers": workers, "nodes": nodes}

    def close(self) -> None:
        """End all workers."""
        self._cluster.view.close()
        self._cluster.pool.close()
