"""One merge on a cluster, as a process: what cluster.py runs beside the head.

    python benchmarks/cluster_merge.py '{"address": ..., "spec": ..., "workers": 4, "timed": 300}'

``workers`` is how many the cluster has: parts are done, and not counted, until all of them have begun and
done some, and no more than ``timed`` are left. Then the clock starts. What it says are lines of JSON with
``kind`` and ``time``: the merge's events and, with the number of ``parts`` that are left, ``clock`` (all
workers are there), ``half`` (of what is timed) and ``end``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from plait.spec import load_spec
from plait_service.budget import budget_of, default_memory, default_threads
from plait_service.cluster.connect import joined
from plait_service.cluster.resources import Resources
from plait_service.driver import Driver
from plait_service.events import Events
from plait_service.executor import Executor, Work
from plait_service.prepare import prepare
from plait_workers.methods import METHODS
from plait_workers.part_pass import PartRecord

WARM = 4
"""Parts of each worker before the clock starts: as many as it does side by side."""


def speaker() -> Callable[[Mapping[str, Any]], None]:
    """Writes events to standard output, a line each; from now on nothing else gets there: Ray prints, too."""
    output, lock = os.fdopen(os.dup(1), "w"), threading.Lock()
    os.dup2(2, 1)

    def say(event: Mapping[str, Any]) -> None:
        with lock:
            print(json.dumps({"time": time.monotonic(), **event}, default=str), file=output, flush=True)

    return say


class Timed:
    """An executor that has another one do the work, and times it once all workers are there.

    Args:
        inner: which.
        workers: how many there will be.
        timed: how many parts are left when the clock starts; None for all that are not needed before.
        tell: told when the clock starts, when half of what it times is done, and all.
    """

    def __init__(
        self,
        inner: Executor,
        *,
        workers: int = 1,
        timed: int | None = None,
        tell: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._inner = inner
        self._workers = workers
        self._timed = timed
        self._tell = tell

    def run(self, work: Work) -> None:
        """As the protocol says."""
        units = list(work.units)

        def do(count: int) -> None:
            taken, units[:] = units[:count], units[count:]
            self._inner.run(replace(work, units=taken))

        while self._inner.state()["workers"] < self._workers:
            do(1)
        do(max(WARM * self._workers, len(units) - (self._timed or len(units))))
        self._time(replace(work, units=units))

    def _time(self, work: Work) -> None:
        left = len(work.units)
        lock = threading.Lock()

        def on_done(record: PartRecord) -> None:
            nonlocal left
            work.on_done(record)
            with lock:
                left -= 1
                if left == len(work.units) // 2:
                    self._tell({"kind": "half", "parts": left})

        self._tell({"kind": "clock", "parts": left})
        self._inner.run(replace(work, on_done=on_done))
        self._tell({"kind": "end", "parts": left})

    def state(self) -> Mapping[str, Any]:
        """Of the other one."""
        return self._inner.state()


def main() -> None:
    """Merge what the argument says."""
    wanted = json.loads(sys.argv[1])
    say = speaker()
    with joined(wanted["address"]):
        from plait_service.cluster.executor import RayExecutor

        prepared = prepare(load_spec(wanted["spec"], methods=METHODS))
        job = prepared.plan.job
        budget = budget_of(
            job, prepared.output, memory=default_memory(), threads=default_threads(remote=True)
        )
        events = Events(job.fingerprint, say)
        executor = RayExecutor(prepared, Resources(), events=events)
        try:
            timed = Timed(executor, workers=wanted["workers"], timed=wanted.get("timed"), tell=say)
            Driver(prepared, budget, executor=timed, events=events).run()
        finally:
            executor.close()
    costs = prepared.plan.costs
    say(
        {"kind": "merged", "parts": costs.num_parts, "read": costs.bytes_read, "written": costs.bytes_written}
    )


if __name__ == "__main__":
    main()
