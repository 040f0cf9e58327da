"""Reading ranges of local files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from plait.errors import SourceChanged, SourceMissing
from plait_workers.storage.base import RangeReader, Scan
from plait_workers.storage.errors import os_errors


def version_of(status: os.stat_result) -> str:
    """What changes whenever a file's bytes may have changed."""
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


class LocalReader:
    """Reads ranges with ``preadv`` into the caller's buffer; one instance a thread or many."""

    def __init__(self, path: Path, version: str) -> None:
        self._path = path
        self._version = version
        with os_errors("opening a source", str(path)):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._compare(os.fstat(self._descriptor))
        except SourceChanged:
            self.close()
            raise

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """Fill ``scratch``; the status is compared by :meth:`check`, once a part."""
        done = 0
        while done < len(scratch):
            with os_errors("reading a source", str(self._path)):
                count = os.preadv(self._descriptor, [scratch[done:]], offset + done)
            if count == 0:
                raise self._changed(f"{offset + done} bytes")
            done += count
        return scratch

    def scan(self, ranges: Sequence[tuple[int, int]]) -> Scan:
        """Nothing to prepare: the page cache reads ahead."""
        return LocalScan(self)

    def check(self) -> None:
        """Compare both the open file (written to?) and the name (another file there?)."""
        self._compare(os.fstat(self._descriptor))
        try:
            with os_errors("looking at a source", str(self._path)):
                status = os.stat(self._path)
        except SourceMissing:
            raise self._changed("no file") from None
        self._compare(status)

    def _compare(self, status: os.stat_result) -> None:
        if version_of(status) != self._version:
            raise self._changed(f"version {version_of(status)}")

    def _changed(self, found: str) -> SourceChanged:
        return SourceChanged(
            "a source changed after the plan was made",
            where=str(self._path),
            expected=f"version {self._version}",
            found=found,
            hint="Run the merge again once the source is at rest",
        )

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class LocalScan:
    """Reads through the reader that it is of."""

    def __init__(self, reader: RangeReader) -> None:
        self.read = reader.read

    def close(self) -> None:
        """The reader stays open for others."""
