"""Reads local files through memory maps: no byte is copied between the page cache and a kernel.

A mapped file that is cut short while it is read raises SIGBUS, which would end the process. So that it
ends the merge with ``source-changed`` instead, the handler of ``kernels/native/bus_error.c``
puts zeros where a page of ours is missing, and counts it; the reader's next check finds the count. A
SIGBUS anywhere else goes to whoever handled it before.

Only on 64-bit Linux, and only on file systems of this machine: network mounts map badly.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from plait_workers.kernels.native import library
from plait_workers.storage.local_io import LocalReader
from plait_workers.storage.mounts import file_system_of

_LOCAL_SYSTEMS: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs", "overlay"})


class _Guard:
    """The one table of maps that the process's handler knows of. A signal handler is global by nature."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library = library()
        self._library.plait_guard_hits.restype = ctypes.c_long
        if self._library.plait_guard_install() != 0:
            raise OSError("the system refuses a handler of SIGBUS")

    def add(self, start: int, size: int) -> int | None:
        """Guard a map; its row, or None if the table is full."""
        with self._lock:
            row: int = self._library.plait_guard_add(ctypes.c_void_p(start), ctypes.c_size_t(size))
            return row if row >= 0 else None

    def hits(self, row: int) -> int:
        """How many pages were missing."""
        hits: int = self._library.plait_guard_hits(row)
        return hits

    def remove(self, row: int) -> None:
        """Forget a map that is gone."""
        with self._lock:
            self._library.plait_guard_remove(row)


@functools.cache
def _guard() -> _Guard:
    return _Guard()


def can_map(path: Path) -> bool:
    """Whether a file lies on a file system of this machine, on a system that we know."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return False
    return file_system_of(path) in _LOCAL_SYSTEMS


class MappedReader(LocalReader):
    """Reads by views of the mapped file. Shared by threads; a view is valid until the reader is closed."""

    def __init__(self, path: Path, version: str) -> None:
        self._row: int | None = None
        self._map: mmap.mmap | None = None
        self._view = memoryview(b"")
        super().__init__(path, version)
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return
        guard = _guard()
        self._map = mmap.mmap(self._descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self._view = memoryview(self._map)
        address: Any = np.frombuffer(self._view, np.uint8).__array_interface__["data"][0]
        self._row = guard.add(int(address), size)
        if self._row is None:  # more maps than rows: this one is read the other way
            self._unmap()

    def read(self, offset: int, scratch: memoryview) -> memoryview:
        """A view of the map; nothing is copied."""
        if self._map is None or offset + len(scratch) > len(self._view):
            return super().read(offset, scratch)
        return self._view[offset : offset + len(scratch)]

    def check(self) -> None:
        """As always; and no page may have been missing. Pages read so far are unmapped again."""
        super().check()
        if self._row is not None and _guard().hits(self._row):
            raise self._changed("missing pages: the file was cut, or its disk failed")
        if self._map is not None:
            # They stay in the page cache, but count no longer as this process's memory.
            self._map.madvise(mmap.MADV_DONTNEED)

    def _unmap(self) -> None:
        self._view.release()
        if self._map is not None:
            self._map.close()
        self._map, self._view = None, memoryview(b"")

    def close(self) -> None:
        """Unmap and close. A map that is still looked at stays, guarded, until the process ends."""
        with suppress(BufferError):
            self._unmap()
            if self._row is not None:
                _guard().remove(self._row)
                self._row = None
        super().close()
