"""Writing parts of a local upload: where a part lies, and the writer that goes through the page cache."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plait.errors import InternalError, SourceMissing, UploadGone
from plait_workers.storage.base import PartInfo
from plait_workers.storage.errors import os_errors

_SYNC_FILE_RANGE_WRITE: Final = 2


class UploadFile:
    """An upload's data. Closed with the last that holds it: a late writer never meets its number reused."""

    def __init__(self, path: Path, flags: int = os.O_RDWR) -> None:
        self.descriptor = os.open(path, flags | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def write(self, data: memoryview, offset: int) -> None:
        """All of it."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], offset + done)

    def sync(self) -> None:
        """The disk has all that was written, by whatever way."""
        os.fdatasync(self.descriptor)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartPlace:
    """Where a part goes.

    Args:
        file: of the upload.
        log: of its finished parts.
        where: the object, for errors.
        number: of the part, from 1.
        offset: of its first byte in the file.
        size: bytes of the part.
        step: bytes that are reserved at once, at most.
    """

    file: UploadFile
    log: Path
    where: str
    number: int
    offset: int
    size: int
    step: int

    def write(self, data: memoryview, at: int, through: UploadFile | None = None) -> None:
        """Bytes from ``at`` of the part; not if the file has become the object meanwhile."""
        if not self.log.exists():
            raise UploadGone("writing a part", where=self.where)
        with os_errors("writing a part", self.where):
            (through or self.file).write(data, self.offset + at)

    def check_room(self, written: int, size: int) -> None:
        """There is room for ``size`` bytes after ``written``."""
        if written + size > self.size or size > self.step:
            raise InternalError("a part is written past its end", where=self.where)

    def note(self, written: int, crc64nvme: int) -> PartInfo:
        """Append to the log: one short write, whole or recognisably cut.

        The line begins with its own line break, so that it never continues one that was cut.
        """
        if written != self.size:
            raise InternalError("a part is not whole", where=self.where)
        part = PartInfo(number=self.number, size=self.size, etag=f"{crc64nvme:016x}")
        line = f"\n{part.number} {part.size} {part.etag} ;\n".encode()
        try:
            with os_errors("finishing a part", self.where):
                log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
                try:
                    if os.write(log, line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                finally:
                    os.close(log)
        except SourceMissing as error:
            raise UploadGone("finishing a part", where=self.where) from error
        return part


class CachedPartWriter:
    """Writes each step with ``pwrite`` into the page cache, while it is still in the processor's."""

    def __init__(self, place: PartPlace) -> None:
        self._place = place
        self._written = 0
        self._buffer = memoryview(bytearray(min(place.step, place.size)))
        self._reserved = self._buffer[:0]

    def reserve(self, size: int) -> memoryview:
        """The front of the one step buffer."""
        self._place.check_room(self._written, size)
        self._reserved = self._buffer[:size]
        return self._reserved

    def commit(self) -> None:
        """Write the step at its place."""
        self._place.write(self._reserved, self._written)
        self._written += len(self._reserved)

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """The disk may begin with it; the log says that it is there."""
        start_writeback(self._place.file.descriptor, self._place.offset, self._place.size)
        return self._place.note(self._written, crc64nvme)


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
