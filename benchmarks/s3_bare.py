"""The bytes of a merge through the client that merges use, and no merge: what one is held against."""

from __future__ import annotations

import queue
import threading
import time

from awscrt.checksums import combine_crc64nvme, crc64nvme
from bare import timed_in_threads

from plait_service.budget import Budget
from plait_service.prepare import Prepared
from plait_workers.job import Unit
from plait_workers.ranges import FileRanges, ranges_of
from plait_workers.readers import Readers
from plait_workers.storage.base import PartInfo, PartWriter, Upload
from plait_workers.workspace import Workspace


class _Part:
    """A part that is filled with what is read."""

    def __init__(self, writer: PartWriter, size: int, step: int) -> None:
        self._writer, self._step = writer, step
        self._reserved = memoryview(b"")
        self._crc = 0
        self.left = size

    def reserve(self, size: int) -> memoryview:
        """Room for the next bytes."""
        self._reserved = self._writer.reserve(size)
        return self._reserved

    def commit(self) -> None:
        """They are there."""
        self._crc = crc64nvme(self._reserved, self._crc)
        self._writer.commit()
        self.left -= len(self._reserved)

    def finish(self) -> tuple[PartInfo, int]:
        """Send it; what nobody filled (a header) is whatever lies there."""
        while self.left:
            self.reserve(min(self._step, self.left))
            self.commit()
        return self._writer.finish(crc64nvme=self._crc), self._crc


class Moving:
    """Reads every range of a job, and sends parts as large as its own that hold the last source's bytes.

    The same units, ranges, steps, threads, buffers and requests as in a merge. Parts hold weights, as servers
    may press together what holds the same byte over and over.
    """

    def __init__(self, prepared: Prepared, budget: Budget) -> None:
        self._job = prepared.plan.job
        self._store = prepared.output
        self._budget = budget
        self._readers = Readers(self._job.sources, list(prepared.stores))
        self._parts: dict[Unit, tuple[PartInfo, int]] = {}
        self._uploads: list[Upload] = []

    def run(self) -> float:
        """Move everything once, uploads begun and completed. Seconds."""
        started = time.perf_counter()
        self._uploads = [
            self._store.create_upload(shard.key, size=shard.size, metadata={}) for shard in self._job.shards
        ]
        units: queue.SimpleQueue[Unit] = queue.SimpleQueue()
        for unit in self._job.units():
            units.put(unit)
        lock = threading.Lock()

        def work(_index: int) -> None:
            workspace = Workspace(step_bytes=self._budget.step_bytes, num_sources=len(self._job.sources))
            while True:
                try:
                    unit = units.get_nowait()
                except queue.Empty:
                    return
                done = self._move(unit, workspace)
                with lock:
                    self._parts[unit] = done

        timed_in_threads(self._budget.threads, work)
        for index, upload in enumerate(self._uploads):
            self._complete(index, upload)
        return time.perf_counter() - started

    def _move(self, unit: Unit, workspace: Workspace) -> tuple[PartInfo, int]:
        shard, step = self._job.shards[unit.shard], self._budget.step_bytes
        start, stop = shard.part_range(unit.number)
        upload = self._uploads[unit.shard]
        writer = self._store.begin_part(upload, unit.number, offset=start, size=stop - start, step=step)
        part = _Part(writer, stop - start, step)
        self._read(ranges_of(self._job, shard.segments(unit.number)), workspace, part)
        return part.finish()

    def _read(self, ranges: FileRanges, workspace: Workspace, part: _Part) -> None:
        """All ranges in steps, a step of each source in turn; the last source's into the part."""
        step, last = self._budget.step_bytes, len(self._job.sources) - 1
        with self._readers.scan(ranges) as scans:
            steps = {
                lane: [
                    (at, min(step, stop - at)) for start, stop in wanted for at in range(start, stop, step)
                ]
                for lane, wanted in ranges.items()
            }
            for index in range(max(map(len, steps.values()), default=0)):
                for lane, wanted in steps.items():
                    if index < len(wanted):
                        at, size = wanted[index]
                        if lane[0] == last and part.left >= size:
                            scans[lane].read(at, part.reserve(size))
                            part.commit()
                        else:
                            scans[lane].read(at, workspace.scratch(lane[0], size))

    def _complete(self, index: int, upload: Upload) -> None:
        numbers = range(1, self._job.shards[index].num_parts + 1)
        done = [self._parts[Unit(shard=index, number=number)] for number in numbers]
        crc = 0
        for part, value in done:
            crc = combine_crc64nvme(crc, value, part.size)
        self._store.complete(upload, [part for part, _ in done], crc64nvme=f"{crc:016x}")
