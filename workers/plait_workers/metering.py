"""What units read and write, and where their time goes: measured around scans and writers, not in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from plait_workers.ranges import Lane
from plait_workers.storage.base import PartInfo, PartWriter, Scan

PHASES = ("read", "merge", "write")


class Meter:
    """Sums of all units of a process. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read = self._written = 0
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def unit(self) -> UnitMeter:
        """Begin to measure one unit."""
        return UnitMeter(self)

    def add(self, *, read: int, written: int, seconds: Mapping[str, float]) -> None:
        """Bytes and seconds of a unit, or of a part of one."""
        with self._lock:
            self._read += read
            self._written += written
            for phase, spent in seconds.items():
                self._seconds[phase] += spent

    def totals(self) -> tuple[int, int, dict[str, float]]:
        """Bytes read, bytes written, seconds by phase."""
        with self._lock:
            return self._read, self._written, dict(self._seconds)


class UnitMeter:
    """Measures one unit, on one thread: what is neither reading nor writing is merging."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._began = time.perf_counter()
        self._read = self._written = 0
        self._reading = self._writing = 0.0

    def scans(self, scans: Mapping[Lane, Scan]) -> dict[Lane, Scan]:
        """The same scans, measured."""
        return {lane: _MeteredScan(scan, self) for lane, scan in scans.items()}

    def writer(self, writer: PartWriter) -> PartWriter:
        """The same writer, measured."""
        return _MeteredWriter(writer, self)

    def was_read(self, count: int, began: float) -> None:
        """``count`` bytes arrived since ``began``."""
        self._read += count
        self._reading += time.perf_counter() - began

    def was_written(self, count: int, began: float) -> None:
        """``count`` bytes left since ``began``."""
        self._written += count
        self._writing += time.perf_counter() - began

    def end(self) -> None:
        """The unit is done, or has failed."""
        rest = time.perf_counter() - self._began - self._reading - self._writing
        seconds = {"read": self._reading, "merge": max(0.0, rest), "write": self._writing}
        self._meter.add(read=self._read, written=self._written, seconds=seconds)


class _MeteredScan:
    def __init__(self, scan: Scan, meter: UnitMeter) -> None:
        self._scan = scan
        self._meter = meter

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        began = time.perf_counter()
        data = self._scan.read(offset, scratch)
        self._meter.was_read(len(data), began)
        return data

    def close(self) -> None:
        self._scan.close()


class _MeteredWriter:
    def __init__(self, writer: PartWriter, meter: UnitMeter) -> None:
        self._writer = writer
        self._meter = meter
        self._reserved = 0

    def reserve(self, size: int) -> memoryview:
        began = time.perf_counter()
        place = self._writer.reserve(size)
        self._reserved = size
        self._meter.was_written(0, began)
        return place

    def commit(self) -> None:
        began = time.perf_counter()
        self._writer.commit()
        self._meter.was_written(self._reserved, began)

    def finish(self, *, crc64nvme: int) -> PartInfo:
        began = time.perf_counter()
        info = self._writer.finish(crc64nvme=crc64nvme)
        self._meter.was_written(0, began)
        return info
