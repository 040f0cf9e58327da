"""Checksums of what a unit read, range by range, so that whole sources can be verified at the end."""

from __future__ import annotations

from dataclasses import dataclass

from plait_workers.checksums import ALGORITHMS, Algorithm
from plait_workers.job import Job
from plait_workers.ranges import Lane


@dataclass(slots=True)
class _Stretch:
    algorithm: Algorithm
    start: int
    stop: int
    value: int = 0


class ReadChecksums:
    """Extends a checksum while reads of a lane follow each other; begins another after a gap."""

    def __init__(self, job: Job) -> None:
        self._sources = job.sources
        self._open: dict[Lane, _Stretch | None] = {}
        self._found: list[tuple[int, int, int, int, int]] = []

    def add(self, lane: Lane, offset: int, data: memoryview) -> None:
        """Bytes at ``offset`` of the lane's file were read."""
        if lane not in self._open:
            self._open[lane] = self._begin(lane, offset)
        stretch = self._open[lane]
        if stretch is None:
            return
        if stretch.stop != offset:
            self._close(lane, stretch)
            stretch = self._open[lane] = _Stretch(stretch.algorithm, offset, offset)
        stretch.value = stretch.algorithm.update(data, stretch.value)
        stretch.stop += len(data)

    def _begin(self, lane: Lane, offset: int) -> _Stretch | None:
        """None for sources that nobody checks."""
        source, _, file = lane
        name = self._sources[source].files[file].algorithm
        return _Stretch(ALGORITHMS[name], offset, offset) if name else None

    def _close(self, lane: Lane, stretch: _Stretch) -> None:
        source, _, file = lane
        if stretch.start < stretch.stop:
            self._found.append((source, file, stretch.start, stretch.stop, stretch.value))

    def found(self) -> list[tuple[int, int, int, int, int]]:
        """(source, file, start, stop, checksum) of every stretch."""
        for lane, stretch in self._open.items():
            if stretch is not None:
                self._close(lane, stretch)
        self._open.clear()
        return self._found
