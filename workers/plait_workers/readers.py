"""Open sources, shared by a worker's threads and limited in number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from plait.errors import SourceChanged, SourceMissing
from plait_workers.job import Source
from plait_workers.ranges import FileRanges, Lane
from plait_workers.storage.base import ObjectStore, RangeReader, Scan

MAX_OPEN: Final = 512
"""Readers kept open; more are open only while units use them all at once."""

FileId = tuple[int, int]
"""(source, file) as a job numbers them."""


class Readers:
    """Readers by (source, file): opened on first use, closed when long unused and too many."""

    def __init__(self, sources: Sequence[Source], stores: Sequence[ObjectStore]) -> None:
        self._sources = sources
        self._stores = stores
        self._lock = threading.Lock()
        self._open: OrderedDict[FileId, RangeReader] = OrderedDict()
        self._users: dict[FileId, int] = {}

    @contextmanager
    def scan(self, ranges: FileRanges) -> Iterator[dict[Lane, Scan]]:
        """Scans of these ranges, for the length of the block; files are checked at its end."""
        files = list(dict.fromkeys((source, file) for source, _, file in ranges))
        with self.borrow(files) as readers, ExitStack() as stack:
            scans = {}
            for lane, wanted in ranges.items():
                source, _, file = lane
                scans[lane] = readers[source, file].scan(wanted)
                stack.callback(scans[lane].close)
            yield scans

    @contextmanager
    def borrow(self, files: Sequence[FileId]) -> Iterator[dict[FileId, RangeReader]]:
        """Readers of these files, for the length of the block; checked against their pins at its end."""
        with ExitStack() as stack:
            borrowed = {}
            for file in files:
                borrowed[file] = self._take(file)
                stack.callback(self._give_back, file)
            yield borrowed
            for reader in borrowed.values():
                reader.check()

    def _take(self, file: FileId) -> RangeReader:
        with self._lock:
            if file not in self._open:
                source, number = file
                pinned = self._sources[source].files[number]
                try:
                    self._open[file] = self._stores[source].open(pinned.key, pinned.version, bulk=True)
                except SourceMissing as error:  # it was there when the merge was planned
                    raise SourceChanged(
                        "a source disappeared after the plan was made",
                        where=error.where,
                        expected=f"version {pinned.version}",
                        found="no file",
                        hint="Run the merge again once the source is at rest",
                    ) from error
            self._open.move_to_end(file)
            self._users[file] = self._users.get(file, 0) + 1
            return self._open[file]

    def _give_back(self, file: FileId) -> None:
        with self._lock:
            self._users[file] -= 1
            idle = [name for name in self._open if not self._users[name]]
            for name in idle[: max(0, len(self._open) - MAX_OPEN)]:
                self._open.pop(name).close()

    def close(self) -> None:
        """Close all; nothing may be borrowed."""
        with self._lock:
            for reader in self._open.values():
                reader.close()
            self._open.clear()
