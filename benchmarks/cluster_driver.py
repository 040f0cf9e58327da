"""What the driver itself takes: a merge of very many units, with workers on a cluster that do nothing."""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from checkpoints import make_headers, model_names
from cluster_noop import NoopActor
from common import DATA, Figure, note
from null_server import NullServer
from s3_places import plan, spec_of, use

from plait.errors import Cancelled
from plait_service.cluster.connect import LOCAL, joined
from plait_service.cluster.resources import Resources
from plait_service.driver import Driver
from plait_service.executor import Executor, Work
from plait_workers.part_pass import PartRecord

LEAST_RATE = 1500.0
MOST_MEMORY = 1e9
MOST_GROWTH = 1.05
PART = 16 << 20
_COLUMNS = 7168
_ROWS = 2048
_SHARDS = 61


class Driven:
    """Times another executor, looks at this process's memory as units are done, and ends the merge then."""

    def __init__(self, inner: Executor, marks: int) -> None:
        self._inner = inner
        self._marks = marks
        self._process = psutil.Process()
        self.seconds = 0.0
        self.resident: dict[int, int] = {}

    def run(self, work: Work) -> None:
        """All units, from the first result on; then Cancelled, as there is nothing to publish."""
        first, done, every = 0.0, 0, max(1, len(work.units) // self._marks)

        def on_done(record: PartRecord) -> None:
            nonlocal first, done
            first = first or time.perf_counter()
            work.on_done(record)
            done += 1
            if done == 1 or done % every == 0:
                self.resident[done] = self._process.memory_info().rss
                note(f"{done} units, {self.resident[done] / 1e6:.0f} MB")

        self._inner.run(
            Work(
                units=work.units,
                uploads=work.uploads,
                stop=work.stop,
                on_done=on_done,
                on_bytes=work.on_bytes,
            )
        )
        self.seconds = time.perf_counter() - first
        raise Cancelled("measured")

    def state(self) -> Any:
        """Of the other one."""
        return self._inner.state()


def driver(options: argparse.Namespace) -> list[Figure]:
    """Claim, journal, heartbeat and progress on a null server; all but the units and the publication."""
    tensors = -(-options.units * PART // (2 * _ROWS * _COLUMNS))
    folder: Path = DATA / f"units-{options.units}-{options.models}"
    make_headers(folder, tensors, options.models, _SHARDS, (_ROWS, _COLUMNS))
    with NullServer(folder) as server:
        use(server)
        with joined(LOCAL):
            from plait_service.cluster.executor import RayExecutor

            prepared, budget = plan(spec_of(model_names(options.models)))
            units = prepared.plan.costs.num_parts
            planned = psutil.Process().memory_info().rss
            executor = RayExecutor(prepared, Resources(workers=options.workers), actor=NoopActor)
            driven = Driven(executor, 10)
            try:
                Driver(prepared, budget, executor=driven, stop=threading.Event()).run()
            except Cancelled:
                if not driven.seconds:
                    raise
            finally:
                executor.close()
    rate, most = units / driven.seconds, max(driven.resident.values())
    marks = sorted(driven.resident)
    # What waits for the journal (a second of records), and Ray's own buffers, find their room once.
    half = len(marks) // 2
    first, second = (max(driven.resident[mark] for mark in part) for part in (marks[:half], marks[half:]))
    return [
        Figure(
            what=f"{units:,} units, from the first result to the last",
            value=f"{rate:,.0f} units/s",
            limit=f"at least {LEAST_RATE:,.0f} units/s",
            met=rate >= LEAST_RATE,
            details={"seconds": driven.seconds},
        ),
        Figure(
            what="resident memory of the driver at most",
            value=f"{most / 1e6:.0f} MB",
            limit=f"under {MOST_MEMORY / 1e6:.0f} MB",
            met=most < MOST_MEMORY,
            details={"by units done": driven.resident},
        ),
        Figure(what="of it: before the first unit", value=f"{planned / 1e6:.0f} MB"),
        Figure(
            what="most in the second half, against the first",
            value=f"{second / first:.3f} x",
            limit=f"at most {MOST_GROWTH:.2f} x",
            met=second / first <= MOST_GROWTH,
        ),
    ]
