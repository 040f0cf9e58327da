"""Writes parts of a local upload past the page cache, beside the merge.

A merge does not read what it writes. Through the page cache its output would be copied once more, be
charged to the container, and push out the sources. So two buffers take turns: one is filled, the
other is being written by a thread that waits for the disk and for nothing else.
"""

from __future__ import annotations

import mmap
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from plait_workers.storage.base import PartInfo
from plait_workers.storage.local_blocks import BLOCK, BlockFile
from plait_workers.storage.local_parts import PartPlace

CHUNK: Final = 4 << 20
"""Bytes from which on a buffer is written: some disks take as long for a request, whatever its size."""
MIN_DIRECT: Final = 3 * CHUNK
"""Parts from here on are worth it, and larger than the two buffers, which a memory budget counts on."""


def buffer_bytes(step: int) -> int:
    """Memory of a :class:`Lane`."""
    return 2 * _capacity(step)


def _capacity(step: int) -> int:
    """The last step begins below a chunk's end."""
    return -(-(CHUNK + step) // BLOCK) * BLOCK


class Lane:
    """Two buffers and the thread that writes them. Used by one part at a time, again and again."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.buffers = [_memory(_capacity(step)) for _ in range(2)]
        self.thread = ThreadPoolExecutor(1, "plait-write")


class DirectPartWriter:
    """Gathers steps and writes whole blocks; the last bytes of a file go through the page cache.

    A writer that is given up may still be writing, so its lane is never used again.
    """

    def __init__(self, place: PartPlace, blocks: BlockFile, lanes: list[Lane]) -> None:
        self._place = place
        self._blocks = blocks
        self._lanes = lanes
        self._lane = _take(lanes, place.step)
        self._current = 0
        self._filled = 0  # of the current buffer
        self._sent = 0  # bytes of the part before it
        self._reserved = 0
        self._pending: Future[None] | None = None

    def reserve(self, size: int) -> memoryview:
        """The next bytes of the current buffer."""
        self._place.check_room(self._sent + self._filled, size)
        self._reserved = size
        return self._lane.buffers[self._current][self._filled : self._filled + size]

    def commit(self) -> None:
        """They stay where they are until there is a chunk."""
        self._filled += self._reserved
        self._reserved = 0
        if self._filled >= CHUNK:
            self._send()

    def finish(self, *, crc64nvme: int) -> PartInfo:
        """Wait until all is written; then the log says that it is there."""
        self._send()
        self._wait()
        if self._filled:
            self._place.write(self._lane.buffers[self._current][: self._filled], self._sent)
        part = self._place.note(self._sent + self._filled, crc64nvme)
        self._lanes.append(self._lane)
        return part

    def _send(self) -> None:
        """Have the whole blocks written, and go on in the other buffer with the bytes behind them."""
        self._wait()
        buffer, other = self._lane.buffers[self._current], self._lane.buffers[1 - self._current]
        size = self._filled // BLOCK * BLOCK
        rest = self._filled - size
        other[:rest] = buffer[size : self._filled]
        self._pending = self._lane.thread.submit(self._place.write, buffer[:size], self._sent, self._blocks)
        self._current, self._filled, self._sent = 1 - self._current, rest, self._sent + size

    def _wait(self) -> None:
        """Raises what went wrong, and again for whoever goes on: the part is never noted."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None


def _memory(size: int) -> memoryview:
    """It begins at a page, as the disk wants it, and is made of huge ones: of others a request holds 256."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # a hint, where there are any
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def _take(lanes: list[Lane], step: int) -> Lane:
    """One that is free, or a new one."""
    try:
        lane = lanes.pop()
    except IndexError:
        return Lane(step)
    return lane if lane.step == step else Lane(step)
