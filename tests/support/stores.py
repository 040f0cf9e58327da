"""Local stores that count, or are short of space: real ones but for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plait_service.prepare import Prepared
from plait_workers.storage.base import RangeReader, Scan
from plait_workers.storage.local import LocalStore
from plait_workers.storage.local_io import LocalScan


class _CountingReader:
    def __init__(self, reader: RangeReader, count: Callable[[int], None]) -> None:
        self._reader = reader
        self._count = count

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        self._count(len(scratch))
        return self._reader.read(offset, scratch)

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        return LocalScan(self)

    def check(self) -> None:
        self._reader.check()

    def close(self) -> None:
        self._reader.close()


class CountingStore(LocalStore):
    """Adds up the bytes that are read in ranges."""

    bytes_read = 0

    def open(self, key: str, version: str, **options: Any) -> RangeReader:
        return _CountingReader(super().open(key, version, **options), self._add)

    def _add(self, count: int) -> None:
        self.bytes_read += count


class FullStore(LocalStore):
    """Says that 1000 bytes are free."""

    def free_bytes(self) -> int | None:
        return 1000


def with_counting(prepared: Prepared) -> tuple[Prepared, list[CountingStore]]:
    """The same merge, its sources read through counting stores. For a merge on one thread."""
    stores = [CountingStore(Path(store.uri)) for store in prepared.stores]
    return replace(prepared, stores=tuple(stores)), stores


def on_full_disk(prepared: Prepared) -> Prepared:
    """The same merge, its output on a disk that is full."""
    return replace(prepared, output=FullStore(Path(prepared.output.uri)))


class Killed(BaseException):
    """Stands for the death of the process: nothing of Plait catches it."""


class _DyingStore(LocalStore):
    deletions_left = 0

    def delete(self, key: str) -> None:
        if self.deletions_left == 0:
            raise Killed
        self.deletions_left -= 1
        super().delete(key)


def dying_after(prepared: Prepared, deletions: int) -> Prepared:
    """The same merge, by a process that dies as it deletes once more than this in its output."""
    output = _DyingStore(Path(prepared.output.uri))
    output.deletions_left = deletions
    return replace(prepared, output=output)
