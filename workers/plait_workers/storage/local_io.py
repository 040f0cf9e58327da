"""Reading and writing ranges of local files."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from plait.errors import InternalError, SourceChanged, SourceMissing, UploadGone
from plait_workers.storage.base import PartInfo, RangeReader, Scan
from plait_workers.storage.errors import os_errors

_SYNC_FILE_RANGE_WRITE: Final = 2


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


class OpenFile:
    """A descriptor, closed with the last that holds it: a late writer never meets its number reused."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Let the disk begin with a range now, without waiting: the sync at the end then has little left.

    A hint, on Linux alone; what it does or does not do shows in no result.
    """
    call = _sync_file_range()
    if call is not None and size:
        call(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "sync_file_range", None)


class LocalPartWriter:
    """Writes a part in steps with ``pwrite``, then notes it in the upload's log."""

    def __init__(
        self, *, file: OpenFile, log: Path, where: str, number: int, offset: int, size: int, step: int
    ) -> None:
        self._file = file
        self._log = log
        self._where = where
        self._number = number
        self._offset = offset
        self._size = size
        self._written = 0
        self._buffer = memoryview(bytearray(min(step, size)))
        self._reserved = self._buffer[:0]

    def reserve(self, size: int) -> memoryview:
        """The front of the one step buffer."""
        if self._written + size > self._size or size > len(self._buffer):
            raise InternalError("a part is written past its end", where=self._where)
        self._reserved = self._buffer[:size]
        return self._reserved

    def commit(self) -> None:
        """Write the step at its place; not if the file has become the object meanwhile."""
        if not self._log.exists():
            raise UploadGone("writing a part", where=self._where)
        done = 0
        with os_errors("writing a part", self._where):
            while done < len(self._reserved):
                at = self._offset + self._written + done
                done += os.pwrite(self._file.descriptor, self._reserved[done:], at)
        self._written += done

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """Append to the log: one short write, whole or recognisably cut.

        The line begins with its own line break, so that it never continues one that was cut.
        """
        if self._written != self._size:
            raise InternalError("a part is not whole", where=self._where)
        start_writeback(self._file.descriptor, self._offset, self._size)
        part = PartInfo(number=self._number, size=self._size, etag=f"{crc64nvme:016x}")
        line = f"\n{part.number} {part.size} {part.etag} ;\n".encode()
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError as error:
            raise UploadGone("finishing a part", where=self._where) from error
        try:
            with os_errors("finishing a part", self._where):
                if os.write(log, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(log)
        return part
