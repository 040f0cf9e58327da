"""The worker as a Ray actor, and the metrics that Ray exports for Prometheus."""

from __future__ import annotations

import threading
from typing import Final

from ray.util.metrics import Counter

from plait_service.cluster.messages import Answer, Begin, Hello, Orders, Setup, Totals, unpack
from plait_service.cluster.worker import Worker

CALLS: Final = 4
"""Calls that run side by side in an actor: one is usual, more follow when answers are lost."""


class WorkerActor:
    """What Ray makes on a node. Each life of a worker is an actor of its own, never restarted by Ray.

    Args:
        setup: of the merge.
        job: packed, by way of Ray's object store.
        name: of its node, as events and metrics have it.
    """

    def __init__(self, setup: Setup, job: bytes, name: str) -> None:
        unpacked = unpack(job)
        self._worker = Worker(setup, unpacked)
        self._counters = WorkerCounters(unpacked.fingerprint[:12], name)

    def begin(self, begin: Begin) -> Hello:
        """See :meth:`Worker.begin`."""
        return self._worker.begin(begin)

    def sync(self, orders: Orders) -> Answer:
        """See :meth:`Worker.sync`."""
        answer = self._worker.sync(orders)
        self._counters.tell(answer.totals)
        return answer


class WorkerCounters:
    """Bytes and seconds of a worker: ``ray_plait_bytes_read_total`` and so on, by job and node."""

    def __init__(self, job: str, node: str) -> None:
        self._tags = {"job": job, "node": node}
        names = ("job", "node")
        self._read = Counter("plait_bytes_read", "Bytes read from sources", names)
        self._written = Counter("plait_bytes_written", "Bytes written to the output", names)
        self._seconds = Counter("plait_phase_seconds", "Seconds of threads, by phase", (*names, "phase"))
        self._told = Totals()
        self._lock = threading.Lock()

    def tell(self, totals: Totals) -> None:
        """What it is by now; rounds begin at 0."""
        with self._lock:
            told = self._told if totals.read >= self._told.read else Totals()
            self._told = totals
            self._add(self._read, totals.read - told.read)
            self._add(self._written, totals.written - told.written)
            for phase, seconds in totals.seconds.items():
                self._add(self._seconds, seconds - told.seconds.get(phase, 0.0), phase=phase)

    def _add(self, counter: Counter, value: float, **tags: str) -> None:
        if value > 0:
            counter.inc(value, {**self._tags, **tags})


class DriverCounters:
    """Units of a merge: ``ray_plait_units_done_total`` and ``ray_plait_units_retried_total``."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._done = Counter("plait_units_done", "Parts finished", ("job", "node"))
        self._retried = Counter("plait_units_retried", "Parts begun again", ("job", "node"))

    def done(self, count: int, node: str) -> None:
        """So many more were finished on a node."""
        if count:
            self._done.inc(count, {"job": self._job, "node": node})

    def retried(self, node: str) -> None:
        """One more is to be done again."""
        self._retried.inc(1, {"job": self._job, "node": node})
