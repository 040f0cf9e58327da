"""Reading and writing ranges of local files."""

from __future__ import annotations

import os
from pathlib import Path

from plait.errors import InternalError, SourceChanged, UploadGone
from plait_workers.storage.base import PartInfo
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

    def check(self) -> None:
        """Compare both the open file (written to?) and the name (another file there?)."""
        self._compare(os.fstat(self._descriptor))
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
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


class LocalPartWriter:
    """Writes a part in steps with ``pwrite``, then notes it in the upload's log."""

    def __init__(
        self, *, descriptor: int, log: Path, where: str, number: int, offset: int, size: int, step: int
    ) -> None:
        self._descriptor = descriptor
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
        """Write the step at its place."""
        done = 0
        with os_errors("writing a part", self._where):
            while done < len(self._reserved):
                at = self._offset + self._written + done
                done += os.pwrite(self._descriptor, self._reserved[done:], at)
        self._written += done

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """Append to the log: one short write, whole or recognisably cut."""
        if self._written != self._size:
            raise InternalError("a part is not whole", where=self._where)
        part = PartInfo(number=self._number, size=self._size, etag=f"{crc64nvme:016x}")
        line = f"{part.number} {part.size} {part.etag} ;\n".encode()
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError as error:
            raise UploadGone("finishing a part", where=self._where) from error
        try:
            with os_errors("finishing a part", self._where):
                os.write(log, line)
        finally:
            os.close(log)
        return part
